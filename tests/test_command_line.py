"""The commands as a person meets them."""

from __future__ import annotations

import subprocess
import sys
import time

import click
import pytest
from click.testing import CliRunner
from conftest import REPOSITORY, environment

from robust_distillation.cli import main


def python(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], env=environment(REPOSITORY), capture_output=True, text=True)


def heavy(modules: str) -> set[str]:
    return set(modules.split()) & {
        "torch",
        "torchvision",
        "pandas",
        "mlflow",
        "snakemake",
        "sklearn",
        "altair",
        "scipy",
    }


def test_help_is_instant_and_imports_nothing_heavy():
    code = "import sys\nfrom robust_distillation.cli import main\ntry: main(['--help'])\n"
    result = python("-c", code + "finally: print(*sys.modules, file=sys.stderr)")
    assert "Usage:" in result.stdout
    assert not heavy(result.stderr)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        python("-m", "robust_distillation.cli", "--help")
        times.append(time.perf_counter() - started)
    print(f"robust-distillation --help: {min(times):.2f} s")


def test_reading_an_experiment_imports_nothing_heavy():
    code = "import sys\nfrom robust_distillation import config\nfrom robust_distillation.pipeline.steps import steps\n"
    code += "e = config.load('params.yaml'); [step.code for step in steps(e)]\nprint(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment(REPOSITORY), capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert not heavy(result.stdout)


EVERY = {**main.commands, **{f"export {name}": one for name, one in main.commands["export"].commands.items()}}


@pytest.mark.parametrize("name", EVERY)
def test_every_command_has_help_with_an_example(name):
    result = CliRunner().invoke(main, [*name.split(), "--help"])
    assert result.exit_code == 0
    assert f"Example: robust-distillation {name}" in result.output
    assert "   " not in EVERY[name].help.replace("\n\n", " "), "the docstring's indentation shows"
    described = [option for option in EVERY[name].params if isinstance(option, click.Option)]
    assert all(option.help for option in described)


def test_mistakes_exit_with_2_and_faults_with_1(tmp_path, monkeypatch):
    assert python("-m", "robust_distillation.cli", "plan", "--experiment", "nowhere.yaml").returncode == 2
    assert python("-m", "robust_distillation.cli", "no-such-command").returncode == 2
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").write_text("a file where a folder belongs")
    result = CliRunner().invoke(main, ["prepare-data", "--experiment", str(REPOSITORY / "params.yaml")])
    assert result.exit_code == 1
    assert isinstance(result.exception, OSError)


def test_plan_tells_runs_jobs_and_cache():
    result = CliRunner().invoke(main, ["plan", "--experiment", str(REPOSITORY / "params.yaml")])
    assert result.exit_code == 0
    for expected in ("24", "features (cache)", "logits (cache), live", "9 views each", "MB"):
        assert expected in result.output
