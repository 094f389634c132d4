"""The method that the others are compared to: named, or chosen on the validation split."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from conftest import REPOSITORY

from robust_distillation.comparison import Comparison
from robust_distillation.config import load
from robust_distillation.errors import UserError
from robust_distillation.pipeline.steps import Compare, DrawFigures
from robust_distillation.reporting.references import Reference, references

PAIR = Comparison("wide", "small")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((REPOSITORY / "params.yaml").read_text())
    return tmp_path


def experiment_with(folder: Path, settings: str):
    (folder / "overlay.yaml").write_text(f"name: reference\nclaims: ~\ntuning: ~\nseeds: [0, 1]\n{settings}")
    return load("params.yaml", "overlay.yaml")


def write_curves(experiment, scores: dict[str, tuple]) -> None:
    for run in experiment.runs:
        if run.method in scores:
            path = experiment.layout.curves(experiment.layout.student(run.teacher, run.student, run.method, run.seed))
            path.parent.mkdir(parents=True)
            lines = [{"epoch": 1, "selection_robust": 0.01}, {"epoch": 2}]  # an epoch without a validation
            lines.append({"epoch": 3, "selection_robust": scores[run.method][run.seed]})
            path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def test_the_best_without_a_teacher_by_the_mean_of_its_seeds(folder):
    experiment = experiment_with(folder, "")
    alone = {run.method for run in experiment.runs if run.teacher == "none"}
    assert {"natural", "sat", "trades"} <= alone
    write_curves(experiment, dict.fromkeys(alone, (0.1, 0.1)) | {"sat": (0.5, 0.3), "trades": (0.44, 0.38)})
    method, score = references(experiment)[PAIR]
    assert method == "trades"
    assert score == pytest.approx(41)


def test_a_named_one_reads_no_curve(folder):
    experiment = experiment_with(folder, "compare_to: ard\n")
    assert references(experiment) == {PAIR: Reference("ard")}
    assert not [file for file in Compare(experiment).inputs if file.name == "metrics.jsonl"]


def test_pairs_have_no_reference(folder):
    assert references(experiment_with(folder, "compare_to: pairs\n")) == {}


def test_the_comparing_step_reads_the_curves_of_students_without_a_teacher(folder):
    step = Compare(experiment_with(folder, ""))
    read = {file.parent.parent.name for file in step.inputs if file.name == "metrics.jsonl"}
    assert read == {run.method for run in step.experiment.runs if run.teacher == "none"}
    assert step.settings["compare_to"] is None  # which one is chosen is no setting
    assert DrawFigures(step.experiment).inputs[0] == step.outputs[0]


def test_a_method_that_is_not_there_is_refused(folder):
    with pytest.raises(UserError, match=re.escape("compare_to: unknown method 'tradess'. Did you mean 'trades'?")):
        experiment_with(folder, "compare_to: tradess\n")
