"""Structural knowledge and robust features: closed forms, then tables from numbers known beforehand."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from robust_distillation.columns import CELL, TEACHER_ROW
from robust_distillation.comparison import Comparison
from robust_distillation.data.dataset import load
from robust_distillation.evaluation.structure import (
    BATCH,
    class_correlation,
    correlation_distance,
    feature_distances,
    structure_of,
)
from robust_distillation.models.checkpoint import build_model
from robust_distillation.reporting import structure
from robust_distillation.reporting.table_spec import TableSpec
from robust_distillation.settings import ThreatModel

EPS = 0.125


class Linear(nn.Module):
    """Features A x, logits W A x + b."""

    def __init__(self, a: torch.Tensor, w: torch.Tensor, b: torch.Tensor):
        super().__init__()
        self.map = nn.Linear(a.shape[1], a.shape[0], bias=False)
        self.classifier = nn.Linear(w.shape[1], w.shape[0])
        with torch.no_grad():
            self.map.weight.copy_(a)
            self.classifier.weight.copy_(w)
            self.classifier.bias.copy_(b)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.map(x.flatten(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x))


def every_image(times: int = 8) -> torch.Tensor:
    """All 2x2 images with pixels 1/4 and 3/4: the pixels are uncorrelated over them and of equal variance."""
    pixels = torch.tensor(list(itertools.product([0.25, 0.75], repeat=4)))
    return pixels.repeat(times, 1).reshape(-1, 1, 2, 2)


def test_correlation_of_a_linear_model_is_the_cosine_of_its_weights():
    w = torch.tensor([[1.0, 2, 0, -1], [0, 1, 1, 1], [-1, -2, 0, 1], [0, 0, 0, 0]])
    x = every_image()
    found = structure_of(Linear(torch.eye(4), w, torch.arange(4.0)), x, torch.zeros(len(x)).long(), threat(), 0)
    expected = torch.eye(4)  # a logit of zero weight is constant
    expected[:3, :3] = nn.functional.cosine_similarity(w[:3, None], w[None, :3], dim=2)
    assert np.abs(np.array(found["correlation"]) - expected.numpy()).max() < 1e-6
    assert found["correlation"][0][2] == -1
    assert found["images"] == len(x) > BATCH


def threat() -> ThreatModel:
    return ThreatModel(eps=EPS)


def test_feature_distance_of_a_linear_model_of_two_classes():
    """Its PGD-20 ends in the corner x - eps s for class 0 and x + eps s for class 1, where s is the sign of the
    gradient of the logits' difference, whatever the start; all its images stay in [0, 1]."""
    torch.manual_seed(0)
    a, w, b = torch.randn(3, 4), torch.randn(2, 3), torch.randn(2)
    x = every_image()
    labels = torch.arange(len(x)) % 2
    found = structure_of(Linear(a, w, b), x, labels, threat(), 5)

    flat, a, w, b = (value.double().numpy() for value in (x.flatten(1), a, w, b))
    side = np.where(labels.numpy() == 0, -1, 1)[:, None]
    attacked = flat + EPS * side * np.sign((w[0] - w[1]) @ a)
    before, after = flat @ a.T, attacked @ a.T
    lengths, lengths_after = np.linalg.norm(before, axis=1), np.linalg.norm(after, axis=1)
    relative = np.linalg.norm(after - before, axis=1) / lengths
    cosine = 1 - (before * after).sum(1) / lengths / lengths_after
    assert found["feature_distance"] == pytest.approx(relative.mean(), rel=1e-5)
    assert found["feature_cosine_distance"] == pytest.approx(cosine.mean(), rel=1e-4)
    assert found["feature_images"] == len(x)
    expected = np.corrcoef((after @ w.T + b).T)
    assert np.array(found["adversarial_correlation"]) == pytest.approx(expected, abs=2e-6)
    assert abs(expected - np.array(found["correlation"])).max() > 0.01


def test_constant_logits_correlate_with_no_other():
    torch.manual_seed(0)
    logits = torch.randn(50, 3)
    logits[:, 1] = 0.1
    logits[:, 2] = 5 + 1e-7 * logits[:, 0]  # rounding at most
    assert (class_correlation(logits) == np.eye(3)).all()
    assert (class_correlation(torch.zeros(1, 4)) == np.eye(4)).all()


def test_correlation_distance():
    ones, signs = np.ones((4, 4)), np.outer([1, 1, -1, -1], [1, 1, -1, -1])
    assert correlation_distance(ones, ones) == 0
    assert correlation_distance(ones, signs) == pytest.approx(math.sqrt(2))  # the largest there is
    assert correlation_distance(np.ones((2, 2)), np.eye(2)) == pytest.approx(math.sqrt(2) / 2)
    torch.manual_seed(0)
    a, b = (class_correlation(torch.randn(20, 7)) for _ in range(2))
    assert correlation_distance(a, b) == correlation_distance(b, a) == pytest.approx(np.sqrt(((a - b) ** 2).mean()))
    assert correlation_distance(a.tolist(), b.tolist()) == correlation_distance(a, b)


def test_feature_distances_of_single_images():
    before = torch.tensor([[3.0, 4], [1, 0], [1, 0], [0, 0], [2, 1], [1, 1]])
    after = torch.tensor([[0.0, 0], [0, 2], [-1, 0], [1, 1], [2, 1], [3, 3]])
    relative, cosine = feature_distances(before, after)
    assert relative.tolist() == pytest.approx([1, math.sqrt(5), 2, 0, 2])
    assert cosine.tolist() == pytest.approx([1, 1, 2, 0, 0], abs=1e-12)


def test_a_network_without_features_has_no_feature_distance():
    x = every_image(1)
    found = structure_of(
        Linear(torch.zeros(3, 4), torch.ones(2, 3), torch.zeros(2)), x, torch.zeros(16).long(), threat(), 0
    )
    assert (found["feature_distance"], found["feature_cosine_distance"], found["feature_images"]) == (None, None, 0)
    assert found["correlation"] == [[1, 0], [0, 1]]


def test_structure_repeats_itself_and_leaves_the_model_as_it_was():
    model = build_model({"name": "convnet", "width": 4}, (1, 8, 8), 10, 1).train()
    data = load("digits", "test").first(BATCH + 30)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first, second, other = (structure_of(model, data.floats(), data.labels, threat(), seed) for seed in (0, 0, 1))
    assert json.dumps(first) == json.dumps(second)
    assert first["feature_distance"] != other["feature_distance"]  # another start of the attack
    assert first["correlation"] == other["correlation"]
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# Tables

SPEC = TableSpec(
    "exp", "controlled", "linf eps 0.1", [Comparison("big", "small"), Comparison("huge", "small")], ["sat", "rslad"],
    ["best", "last"], ["clean", "pgd20"],
)  # fmt: skip


def measured(teacher: str, student: str, method: str, seed: int, checkpoint: str, off: float, moved: float) -> dict:
    """A structure of two classes whose logits correlate by `off`."""
    matrix = [[1.0, off], [off, 1.0]]
    return {
        "teacher": teacher, "student": student, "method": method, "seed": seed, "checkpoint": checkpoint, "images": 40,
        "correlation": matrix, "adversarial_correlation": [[1.0, -off], [-off, 1.0]], "feature_images": 40,
        "feature_distance": moved, "feature_cosine_distance": moved / 10,
    }  # fmt: skip


def example() -> pd.DataFrame:
    """Distances of matrices of two classes are the difference of their `off`, divided by sqrt(2)."""
    found = [
        measured("big", TEACHER_ROW, "trades", 0, "best", 0.5, 0.25),
        measured("huge", TEACHER_ROW, "sat", 3, "last", 0.0, 0.125),
    ]
    for checkpoint, more in (("best", 0), ("last", 0.1)):
        for seed in (0, 1):
            found.append(measured("none", "small", "sat", seed, checkpoint, 0.2 * seed + more, 0.5 + 0.1 * seed))
            found.append(measured("big", "small", "rslad", seed, checkpoint, 0.4 + more, 0.3))
            found.append(measured("huge", "small", "rslad", seed, checkpoint, -0.2 + more, 0.2))
    return pd.DataFrame(found)


def test_tidy_structure_has_the_expected_numbers():
    table = structure.tidy(example()[::-1], SPEC)
    assert list(table.columns) == structure.COLUMNS
    assert not table[CELL].duplicated().any()
    assert len(table) == 2 * 2 + 2 * 2 * 2 * 4  # teachers' features; pairs, methods, checkpoints, metrics
    assert list(table["student"].head(4)) == ["-"] * 4
    assert set(table["protocol"]) == {"controlled"}
    assert set(table["n_images"]) == {40}
    found = table.set_index(CELL)
    root = math.sqrt(2)
    for teacher, metric, expected in (
        ("big", "correlation_distance", [0.5, 0.3]),
        ("huge", "correlation_distance", [0.0, 0.2]),
        ("big", "adversarial_correlation_distance", [0.5, 0.3]),
        ("big", "feature_distance", [0.5 * root, 0.6 * root]),
    ):
        values = np.array(expected) / root
        row = found.loc[(teacher, "small", "sat", "best", metric)]
        half = 12.706204736174694 * values.std(ddof=1) / root  # t(0.975, 1)
        assert row["n_seeds"] == 2
        assert row["mean"] == pytest.approx(values.mean(), abs=1e-6)
        assert row["sd"] == pytest.approx(values.std(ddof=1), abs=1e-6)
        assert (row["ci_low"], row["ci_high"]) == pytest.approx((values.mean() - half, values.mean() + half), abs=2e-6)
    assert found.loc[("huge", "small", "rslad", "last", "correlation_distance"), "mean"] == round(0.1 / root, 6)
    assert found.loc[("big", "-", "trades", "best", "feature_distance"), "mean"] == 0.25
    assert np.isnan(found.loc[("big", "-", "trades", "best", "feature_distance"), "sd"])


def test_students_that_no_teacher_stands_beside_have_feature_distances_only(tmp_path):
    alone = example()[example()["teacher"] == "none"]
    spec = replace(SPEC, comparisons=[Comparison("none", "small")])
    table = structure.tidy(alone, spec)
    assert set(table["metric"]) == {"feature_distance", "feature_cosine_distance"}
    structure.write_tables(alone, spec, tmp_path)


def test_a_model_without_features_leaves_its_cells_empty():
    found = example()
    found.loc[found["method"] == "rslad", "feature_distance"] = None
    table = structure.tidy(found, SPEC)
    assert not (table["method"].eq("rslad") & table["metric"].eq("feature_distance")).any()
    assert (table["method"].eq("rslad") & table["metric"].eq("feature_cosine_distance")).any()


def test_structure_tables_for_people(tmp_path):
    structure.write_tables(example(), SPEC, tmp_path)
    text = (tmp_path / "structure.md").read_text()
    assert "exp: structural knowledge and robust features on 40 test images" in text
    assert "mean ± sd over 2 seeds" in text
    assert "smaller is closer to the teacher" in text
    assert "smaller is more robust" in text
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "]
    assert len(lines) == 2 * 4
    assert lines[0][:3] == ["method", "Correlation distance (best)", "Correlation distance on x' (best)"]
    assert lines[1][:5] == ["teacher (trades, best)", "", "", "0.250", "0.025"]
    assert lines[2][:4] == ["sat", "0.283 ± 0.100", "0.283 ± 0.100", "0.550 ± 0.071"]
    assert lines[5][0] == "teacher (sat, last)"
    tex = (tmp_path / "structure.tex").read_text()
    assert tex.count(r"\begin{table}") == tex.count(r"\end{table}") == 2
    assert r"sat & 0.283 $\pm$ 0.100 &" in tex
    read = pd.read_csv(tmp_path / "structure.csv")
    assert len(read) == len(structure.tidy(example(), SPEC))
