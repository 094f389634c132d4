"""The whole experiment in one go: Snakemake, its report, the table on the screen, and where to look next."""

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
    """Exit code 0 if everything is made, Snakemake's own otherwise. Run in the checkout's top folder."""
    chosen = [f"experiment={path}"] + ([f"overlay={overlay}"] if overlay else [])
    command = [sys.executable, "-m", "snakemake", "--config", *chosen]
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
        print("Not everything was made; what failed is named above. What is done stays: start again to go on.")
        return status
    layout = experiment.layout
    _report(command, environment, layout)
    options = f" EXPERIMENT={path}" if path != "params.yaml" else ""
    options += f" OVERLAY={overlay}" if overlay else ""
    print(f"\n{(layout.tables / 'main.md').read_text(encoding='utf-8')}")
    places = {
        str(layout.report): "what came out, on one page",
        f"{layout.tables}/": "the table as CSV, Markdown and LaTeX",
        f"{layout.figures}/": "accuracies, methods compared, training curves, robustness by class and eps",
        str(layout.workflow_report): "which job made what, with code and times",
        f"make ui{options}": "every run's curves and settings in MLflow",
    }
    print("Where to look next")
    for place, what in places.items():
        print(f"  {place:<{max(map(len, places))}}  {what}")
    return 0


def _report(command: list[str], environment: dict[str, str], layout: Layout) -> None:
    """Snakemake's report, made anew where it is older than what it shows."""
    reported = [layout.tracked, *layout.tables.iterdir(), *layout.figures.rglob("*.png")]
    if layout.workflow_report.is_file() and all(
        layout.workflow_report.stat().st_mtime >= file.stat().st_mtime for file in reported
    ):
        return
    with atomic_write(layout.workflow_report) as temporary:
        made = subprocess.run([*command, "--report", str(temporary)], env=environment, capture_output=True, text=True)
        if made.returncode:
            raise RuntimeError(f"snakemake --report failed:\n{made.stderr}")
