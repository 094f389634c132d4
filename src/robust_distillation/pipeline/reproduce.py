"""Runs a whole experiment by Snakemake, makes Snakemake's report, and prints the main table and the result files."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from robust_distillation.config import Experiment
from robust_distillation.errors import UserError
from robust_distillation.files import atomic_write
from robust_distillation.layout import Layout


def run_workflow(experiment: Experiment, path: str, overlay: str | None) -> int:
    """Runs a whole experiment by Snakemake and prints its main table and the list of result files.

    The current folder must be the top folder of the checkout. Only files that are missing or out of date are made.
    Afterwards writes Snakemake's own report, results/EXPERIMENT/snakemake-report.html, unless it is newer than the
    results.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        path: path of the experiment file from which it was loaded, for example `params.yaml`.
        overlay: path of a second YAML file whose values replace those of `path`. None: no overlay.

    Returns:
        Exit code: 0 if everything is made, else Snakemake's.

    Raises:
        UserError: if Snakemake is running in this folder, or was killed and left its lock.
        RuntimeError: if Snakemake fails to write its report.
    """
    config = [f"experiment={path}"] + ([f"overlay={overlay}"] if overlay else [])
    command = [sys.executable, "-m", "snakemake", "--config", *config]
    # The rules call `robust-distillation`: the one that belongs to this Python comes first.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    if any(Path(".snakemake/locks").glob("*")):
        options = shlex.join(command[command.index("-m") + 1 :])
        raise UserError(
            "another run works in this folder, or one was killed. If none does, unlock it and start again:\n"
            f"  .venv/bin/{options} --unlock"
        )
    status = subprocess.run([*command, "--logger", "robust-distillation"], env=environment).returncode
    if status:
        print("Not everything was made; the jobs that failed are named above. Start again to continue with the rest.")
        return status
    layout = experiment.layout
    _report(command, environment, layout)
    options = f" EXPERIMENT={path}" if path != "params.yaml" else ""
    options += f" OVERLAY={overlay}" if overlay else ""
    print(f"\n{(layout.tables / 'main.md').read_text(encoding='utf-8')}")
    places = {
        str(layout.report): "all results on one page",
        f"{layout.tables}/": "the table as CSV, Markdown and LaTeX",
        f"{layout.figures}/": "accuracies, methods compared, training curves, robustness by class and eps",
        str(layout.workflow_report): "which job made what, with code and times",
        f"make ui{options}": "every run's curves and settings in MLflow",
    }
    print("Results")
    for place, content in places.items():
        print(f"  {place:<{max(map(len, places))}}  {content}")
    return 0


def _report(command: list[str], environment: dict[str, str], layout: Layout) -> None:
    """Makes Snakemake's report, unless it is newer than all results in it."""
    reported = [layout.tracked, *layout.tables.iterdir(), *layout.figures.rglob("*.png")]
    if layout.workflow_report.is_file() and all(
        layout.workflow_report.stat().st_mtime >= file.stat().st_mtime for file in reported
    ):
        return
    with atomic_write(layout.workflow_report) as temporary:
        made = subprocess.run([*command, "--report", str(temporary)], env=environment, capture_output=True, text=True)
        if made.returncode:
            raise RuntimeError(f"snakemake --report failed:\n{made.stderr}")
