"""Every method with every choice among its own settings trains from files, as a workflow runs it.

The caches and networks of its teachers are opened, its own modules are built, and a student is written.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
from click.testing import CliRunner
from conftest import REPOSITORY
from ruamel.yaml import YAML

from robust_distillation import methods
from robust_distillation.cli import main
from robust_distillation.config import load
from robust_distillation.models.checkpoint import load_model
from robust_distillation.planning.jobs import jobs_of

pytestmark = pytest.mark.slow

# A setting that decides what another one may be comes with it.
TOGETHER = {"misplaced_bracket": {"group_batch_size": 24}}


def choices(name: str) -> list[dict]:
    """The defaults, and each other value of a setting that has a few."""
    found = [{}, {"igdm": {}}] if "igdm" in methods.get(name).model_fields else [{}]
    for key, field in methods.get(name).model_fields.items():
        values = [False, True] if field.annotation is bool else ()
        if get_origin(field.annotation) is Literal:
            values = get_args(field.annotation)
        found += [{key: value} | TOGETHER.get(key, {}) for value in values if value != field.default]
    return found


def entries() -> dict[str, dict]:
    found = {}
    for name in methods.names():
        for settings in choices(name):
            methods.get(name)(**settings)
            parts = [key if value == {} else f"{key}-{value}" for key, value in settings.items()]
            found["-".join([name, *parts])] = {"method": name} | settings
    return found


SETTINGS = """
name: choices
dataset: {limit: {train: 48, validation: 16}}
seeds: [0]
training: {epochs: 1, milestones: [], batch_size: 24, inner_attack: {steps: 1}, selection: {steps: 1}}
tuning: ~
teachers:
  wide: {width: 2, training: {epochs: 1, milestones: []}}
  all: {roles: {teacher: wide, robust: wide, natural: wide, first: wide, second: wide}}
students: {small: {width: 2}}
exclude: [{teacher: wide}]
evaluation: {attacks: [fgsm], checkpoints: [last]}
robustness: ~
structure: ~
transfer: ~
claims: ~
"""


@cache
def overlay() -> dict:
    settings = YAML(typ="safe").load(SETTINGS)
    own = YAML(typ="safe").load(REPOSITORY / "params.yaml")["methods"]
    return settings | {"methods": dict.fromkeys(own) | entries()}


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A folder in which all that the students need is made."""
    folder = tmp_path_factory.mktemp("choices")
    (folder / "params.yaml").write_text((REPOSITORY / "params.yaml").read_text())
    with (folder / "choices.yaml").open("w") as stream:
        YAML(typ="safe").dump(overlay(), stream)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in jobs_of(load("params.yaml", "choices.yaml")):
            if name.split()[0] in ("prepare-data", "train-teacher", "fill-cache"):
                run(*name.split())
    return folder


def run(*arguments: str) -> None:
    result = CliRunner().invoke(main, [*arguments, "--experiment", "params.yaml", "--overlay", "choices.yaml"])
    assert result.exit_code == 0, (arguments, result.output, result.exception)


@pytest.mark.parametrize("name", entries())
def test_student_is_trained(name, tree, monkeypatch):
    monkeypatch.chdir(tree)
    [trained] = [run for run in load("params.yaml", "choices.yaml").runs if run.method == name]
    run("train-student", f"{trained.teacher}/{trained.student}/{name}/seed-{trained.seed}")
    [weights] = Path("results/choices/students").glob(f"*/small/{name}/seed-0/last.safetensors")
    load_model(weights)
