"""Transfer across tasks: the head's training, its folding, and the tables of what attacks left."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torch import nn

from robust_distillation.columns import CELL, TEACHER_ROW
from robust_distillation.comparison import Comparison
from robust_distillation.data.dataset import Dataset, load
from robust_distillation.data.info import DatasetInfo
from robust_distillation.evaluation.attack import attack_run, predict
from robust_distillation.evaluation.blocks import blocks
from robust_distillation.evaluation.transfer import features_of, fold_scaling, train_head
from robust_distillation.models.checkpoint import build_model, load_model, save_checkpoint
from robust_distillation.reporting import transfer
from robust_distillation.reporting.table_spec import TableSpec
from robust_distillation.settings import ThreatModel

CPU = torch.device("cpu")


def settings(**changes) -> SimpleNamespace:
    usual = {"epochs": 30, "batch_size": 64, "learning_rate": 3.0, "momentum": 0.9, "weight_decay": 0.0}
    return SimpleNamespace(**(usual | changes))


def digits(classes: int, split: str, count: int = 300) -> Dataset:
    """The first images of the first classes, as a task of their own."""
    data = load("digits", split)
    kept = (data.labels < classes).nonzero().squeeze(1)[:count]
    about = DatasetInfo(data.info.shape, data.info.classes[:classes], False, {split: count}, data.info.max_value)
    return Dataset(data.images[kept], data.labels[kept], about)


def backbone(classes: int = 10, width: int = 4) -> nn.Module:
    """Random, with batch norm statistics that are not the initial ones."""
    model = build_model({"name": "convnet", "width": width}, (1, 8, 8), classes, 1)
    with torch.no_grad():
        model.train()(load("digits", "train").floats()[:200])
    return model


def noisy() -> tuple[Dataset, Dataset]:
    """Three classes with every fifth label wrong: no weights fit them all."""
    train, validation = digits(3, "train"), digits(3, "validation")
    labels = torch.where(torch.arange(len(train)) % 5 == 0, (train.labels + 1) % 3, train.labels)
    return Dataset(train.images, labels, train.info), validation


def test_head_separates_what_can_be_separated():
    model, train, validation = backbone(width=16), digits(3, "train"), digits(3, "validation")
    state, metrics = train_head(model, train, validation, settings(epochs=60), 0, CPU)
    assert [line["epoch"] for line in metrics] == list(range(1, 61))
    assert metrics[-1]["training_clean"] == 1
    assert metrics[-1]["loss"] < 0.05
    assert metrics[-1]["validation_clean"] > 0.95
    assert metrics[0]["learning_rate"] == 3 > metrics[30]["learning_rate"] > metrics[59]["learning_rate"] > 0

    transferred = build_model({"name": "convnet", "width": 16}, (1, 8, 8), 3)
    transferred.load_state_dict(state)
    right = predict(transferred.eval(), validation.floats()).classes == validation.labels
    assert right.float().mean().item() == metrics[-1]["validation_clean"]


def test_head_reaches_the_optimum_of_logistic_regression():
    """A convex problem, solved here by L-BFGS in float64 on whitened features."""
    model, (train, validation) = backbone(), noisy()
    _, metrics = train_head(model, train, validation, settings(epochs=150, batch_size=300), 0, CPU)
    features = features_of(model, train, CPU).double()
    features = len(features) ** 0.5 * torch.linalg.qr(features - features.mean(0)).Q  # spans the same
    weight, bias = (torch.zeros(size, dtype=torch.float64, requires_grad=True) for size in ((3, 8), (3,)))
    solver = torch.optim.LBFGS([weight, bias], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        solver.zero_grad()
        value = nn.functional.cross_entropy(features @ weight.T + bias, train.labels)
        value.backward()
        return value

    solver.step(loss)
    optimum = loss().item()
    assert max(weight.grad.abs().max(), bias.grad.abs().max()) < 1e-5
    assert 0.3 < optimum < metrics[-1]["loss"] + 1e-6
    assert metrics[-1]["loss"] == pytest.approx(optimum, rel=0.01)


def test_backbone_and_model_stay_bit_for_bit_what_they_were():
    model, (train, validation) = backbone().train(), noisy()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state, _ = train_head(model, train, validation, settings(epochs=2), 0, CPU)
    assert list(state) == list(before)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    own = {name for name in state if name.startswith("classifier.")}
    assert {name: tuple(state[name].shape) for name in own} == {"classifier.weight": (3, 8), "classifier.bias": (3,)}
    for name in set(state) - own:
        assert torch.equal(state[name], before[name]), name
        assert state[name].data_ptr() != model.state_dict()[name].data_ptr()
    assert any("running_mean" in name for name in set(state) - own)
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_same_seed_same_head_and_the_global_generator_does_not_matter():
    (train, validation), found = noisy(), []
    for seed in (0, 0, 1):
        torch.manual_seed(len(found))
        found.append(train_head(backbone(), train, validation, settings(epochs=2), seed, CPU))
    (one, lines), (two, again), (other, _) = found
    assert lines == again
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["classifier.weight"], other["classifier.weight"])


def test_folding_is_exact():
    torch.manual_seed(0)
    features = 50 + 9 * torch.randn(40, 7, dtype=torch.float64)
    weight, bias, mean = torch.randn(5, 7).double(), torch.randn(5).double(), features.mean(0)
    scale = torch.tensor(13.7, dtype=torch.float64)
    by_hand = (features - mean) / scale @ weight.T + bias
    weight, bias = fold_scaling(weight, bias, mean, scale)
    assert (features @ weight.T + bias - by_hand).abs().max() < 1e-12


class Wrapped(nn.Module):
    """A backbone inside another model, under another name, with scaled features."""

    def __init__(self, inner: nn.Module, scale: float):
        super().__init__()
        self.inner = inner
        self.scale = scale

    @property
    def classifier(self) -> nn.Module:
        return self.inner.classifier

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * self.inner.features(x)


def test_scale_of_the_features_does_not_matter():
    found = {}
    for scale in (1.0, 1000.0):
        state, lines = train_head(Wrapped(backbone(), scale), *noisy(), settings(epochs=5), 0, CPU)
        assert {name for name in state if "classifier" in name} == {"inner.classifier.weight", "inner.classifier.bias"}
        found[scale] = state["inner.classifier.weight"], state["inner.classifier.bias"], lines[-1]["loss"]
    assert found[1.0][0] == pytest.approx(1000 * found[1000.0][0], rel=1e-3, abs=1e-4)
    assert found[1.0][1] == pytest.approx(found[1000.0][1], rel=1e-3, abs=1e-4)
    assert found[1.0][2] == pytest.approx(found[1000.0][2], rel=1e-4)


@pytest.mark.parametrize(
    ("architecture", "normalisation"),
    [
        ({"name": "convnet", "width": 4}, {"mean": [0.3], "std": [0.4]}),
        ({"name": "wide_resnet", "depth": 10, "width": 1}, None),
        ({"name": "resnet", "width": 4}, {"mean": [0.3], "std": [0.4]}),
        ({"name": "cifar_resnet", "depth": 20, "width": 4}, None),
        ({"name": "preact_resnet", "width": 4}, None),
        ({"name": "mobilenet_v2", "width": 4}, None),
        ({"name": "dm_wide_resnet", "depth": 10, "width": 1}, None),
    ],
    ids=lambda value: value and value.get("name"),
)
def test_head_of_every_architecture_can_be_saved_and_loaded(architecture, normalisation, tmp_path):
    def about(classes: str) -> dict:
        own = {"shape": [1, 32, 32], "classes": list(classes)}
        return {"architecture": architecture, "normalisation": normalisation, "dataset": own}

    save_checkpoint(tmp_path / "ten", build_model(architecture, (1, 32, 32), 10, 1).state_dict(), about("0123456789"))
    model = load_model(tmp_path / "ten")
    train, validation = (enlarged(digits(3, split, 40)) for split in ("train", "validation"))
    state, metrics = train_head(model, train, validation, settings(epochs=3), 0, CPU)
    save_checkpoint(tmp_path / "three", state, about("012"))
    restored = load_model(tmp_path / "three")
    assert torch.equal(restored.features(train.floats()), model.features(train.floats()))
    right = predict(restored, validation.floats()).classes == validation.labels
    assert right.float().mean().item() == metrics[-1]["validation_clean"]


def enlarged(data: Dataset) -> Dataset:
    """32x32 pixels of 8x8."""
    return Dataset(data.images.repeat_interleave(4, 2).repeat_interleave(4, 3), data.labels, data.info)


def test_weight_decay_shrinks_the_head():
    norms = []
    for decay in (0.0, 0.1):
        state, _ = train_head(backbone(), *noisy(), settings(epochs=5, weight_decay=decay), 0, CPU)
        norms.append(state["classifier.weight"].norm().item())
    assert norms[1] < norms[0] / 2


def test_a_backbone_without_features_learns_the_classes_frequencies():
    model, (train, validation) = backbone(), noisy()
    with torch.no_grad():
        for module in model.stem:
            if isinstance(module, nn.BatchNorm2d):
                module.weight.zero_()
                module.bias.fill_(0.1)
    _, metrics = train_head(model, train, validation, settings(batch_size=300), 0, CPU)
    share = torch.bincount(train.labels) / len(train)
    assert metrics[-1]["loss"] == pytest.approx(-(share * share.log()).sum().item(), abs=1e-4)


def test_a_learning_rate_beyond_all_bounds_is_named():
    with pytest.raises(FloatingPointError, match="lower its learning_rate"):
        train_head(backbone(), *noisy(), settings(learning_rate=1e38), 0, CPU)


def test_transferred_model_is_attacked_end_to_end(tmp_path):
    train, validation, test = (digits(5, split, 60) for split in ("train", "validation", "test"))
    state, metrics = train_head(backbone(), train, validation, settings(), 0, CPU)
    about = {"shape": [1, 8, 8], "classes": list(train.info.classes)}
    path = tmp_path / "head.safetensors"
    save_checkpoint(path, state, {"architecture": {"name": "convnet", "width": 4}, "dataset": about})
    assert load_model(path)(test.floats()).shape == (60, 5)
    outcomes = attack_run({"best": path}, test, blocks(60, 30, 0), ["pgd20"], ThreatModel(eps=0.1), CPU)
    clean = (outcomes["label"] == outcomes["prediction"]).mean()
    assert clean > 0.6
    assert outcomes["pgd20"].mean() < clean
    assert abs(metrics[-1]["validation_clean"] - clean) < 0.25


# Tables

SPEC = TableSpec(
    "exp", "controlled", "linf eps 0.1", [Comparison("big", "small")], ["sat", "rslad"], ["best", "last"],
    ["clean", "pgd20"],
)  # fmt: skip


def example() -> pd.DataFrame:
    """Of four images each; clean accuracy 75 %, held by attack as given."""
    parts = []
    runs = {("big", TEACHER_ROW, "trades", 7, "best"): 3}
    for seed in (0, 1):
        for checkpoint in ("best", "last"):
            runs["none", "small", "sat", seed, checkpoint] = 1
            runs["big", "small", "rslad", seed, checkpoint] = 1 + seed
    for keys, n_correct in runs.items():
        columns = {
            "index": range(4), "label": 0, "prediction": [0, 0, 0, 1], "block": 0, "attack_seed": 7,
            "pgd20": [number < n_correct for number in range(4)],
        }  # fmt: skip
        names = ["teacher", "student", "method", "seed", "checkpoint"]
        parts.append(pd.DataFrame(columns).assign(**dict(zip(names, keys, strict=True))))
    return pd.concat(parts[::-1], ignore_index=True)


def test_tidy_transfer_has_the_expected_numbers():
    table = transfer.tidy(example(), SPEC, "stl10")
    assert list(table.columns) == transfer.COLUMNS
    assert len(table) == 2 + 2 * 2 * 2
    assert set(table["target"]) == {"stl10"}
    assert list(table["student"].head(2)) == ["-", "-"]
    found = table.set_index(CELL)
    assert found.loc[("big", "-", "trades", "best", "pgd20"), "mean"] == 75
    assert found.loc[("none", "small", "sat", "last", "pgd20"), "mean"] == 25
    row = found.loc[("big", "small", "rslad", "best", "pgd20")]
    assert (row["n_seeds"], row["n_images"], row["mean"]) == (2, 4, 37.5)
    assert row["sd"] == pytest.approx(12.5 * math.sqrt(2), abs=1e-4)
    assert (row["ci_low"], row["ci_high"]) == (0, 100)  # two seeds and four images say nothing
    assert found.loc[("big", "small", "rslad", "best", "clean"), "mean"] == 75


def test_transfer_tables_for_people(tmp_path):
    transfer.write_tables(example(), SPEC, "stl10", tmp_path)
    text = (tmp_path / "transfer-stl10.md").read_text()
    assert "exp: transfer to stl10, a linear head on the frozen backbone" in text
    assert "4 test images of the target, linf eps 0.1, controlled protocol; mean ± sd over 2 seeds" in text
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "]
    assert lines[0] == ["method", "Clean (best)", "PGD-20 (best)", "Clean (last)", "PGD-20 (last)"]
    assert lines[1] == ["teacher (trades, best)", "75.00", "75.00", "", ""]
    assert lines[2][:3] == ["sat", "75.00 ± 0.00", "25.00 ± 0.00"]
    assert lines[3][:3] == ["rslad", "75.00 ± 0.00", "37.50 ± 17.68"]
    tex = (tmp_path / "transfer-stl10.tex").read_text()
    assert r"rslad & 75.00 $\pm$ 0.00 & 37.50 $\pm$ 17.68" in tex
    assert len(pd.read_csv(tmp_path / "transfer-stl10.csv")) == 10
