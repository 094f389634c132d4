"""The project's own promises: pins, experiments, and what stands in its files."""

from __future__ import annotations

import re
import subprocess
import tomllib

import pytest
from conftest import REPOSITORY
from ruamel.yaml import YAML

from robust_distillation import config

EXPERIMENTS = [REPOSITORY / "params.yaml", *sorted((REPOSITORY / "experiments").glob("*.yaml"))]


def pins(lines: list[str]) -> dict[str, str]:
    return dict(line.strip().split("==") for line in lines if "==" in line and not line.startswith("#"))


def test_conda_and_pip_state_the_same_pins():
    pip = pins((REPOSITORY / "requirements.txt").read_text().splitlines())
    conda = YAML(typ="safe").load((REPOSITORY / "environment.yml").read_text())["dependencies"]
    assert pins(conda[-1]["pip"]) == pip
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    pinned = {name.lower().replace("_", "-").replace(".", "-") for name in pip}
    assert {name.lower().replace("_", "-").replace(".", "-") for name in declared} <= pinned
    assert (pip["torch"], pip["torchvision"]) == ("2.14.1", "0.29.1")


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_is_valid_and_evaluated_enough(path):
    experiment = config.load(path)
    assert len(experiment.file.seeds) >= 3
    assert experiment.test_images >= 200
    assert experiment.evaluation.attacks[-1] == "autoattack"
    first = "last" if path.stem.startswith(("saad", "tald")) else "best"  # the codes of SAAD and TALD report the last
    assert experiment.evaluation.checkpoints[0] == first


def test_experiment_names_differ():
    names = [config.load(path).name for path in EXPERIMENTS]
    assert len(EXPERIMENTS) >= 2
    assert len(set(names)) == len(names)


def test_default_experiment_compares_all_eight_methods_under_one_budget():
    experiment = config.load(REPOSITORY / "params.yaml")
    expected = {"natural", "sat", "trades", "mart", "ard", "iad", "rslad", "gacd"}
    assert {named.kind for named in experiment.methods.values()} == expected
    assert {teacher.recipe.method.kind for teacher in experiment.teachers.values()} == {"trades"}
    budgets = {str(experiment.student_settings(run)["training"]) for run in experiment.runs}
    assert len(budgets) == 1


def test_tracked_files_name_no_folder_of_a_machine():
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    found = []
    for name in listed.stdout.split():
        path = REPOSITORY / name
        if path.is_file() and path.suffix in {".py", ".smk", ".md", ".yaml", ".yml", ".toml", ".txt", ".rst", ""}:
            text = path.read_text(encoding="utf-8")
            found += [(name, match) for match in re.findall(r"/(?:home|root|work|Users)/\w+", text)]
    assert not found
