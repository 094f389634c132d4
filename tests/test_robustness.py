"""Accuracy against eps: a model whose margins are known, then the files of a real run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from robust_distillation import load_dataset, load_model
from robust_distillation.attacks.apgd import correct_under_apgd
from robust_distillation.evaluation.robustness import BATCH, STEPS, gallery, robustness_curve
from robust_distillation.files import read_json, sha256
from robust_distillation.settings import ThreatModel

THREAT = ThreatModel(eps=0.15)


class Threshold(nn.Module):
    """Class 1 where the mean of an image is above 1/2: in linf an image is safe up to |mean - 1/2|."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        above = 10 * (x.mean((1, 2, 3)) - 0.5)
        return torch.stack([-above, above], 1)


def greys(*levels: float) -> torch.Tensor:
    return torch.tensor(levels)[:, None, None, None].expand(-1, 1, 3, 3).clone()


def test_an_image_holds_up_to_its_distance_from_the_boundary():
    x, labels = greys(0.45, 0.3, 0.2, 0.9, 0.8), torch.tensor([0, 0, 0, 1, 0])  # the last is wrong to begin with
    found = robustness_curve(Threshold(), x, labels, "linf", [0.1, 0.25, 0.35, 0.5], 0)
    assert found["eps"] == [0, 0.1, 0.25, 0.35, 0.5]
    assert found["accuracy"] == [80, 60, 40, 20, 0]
    assert (found["images"], found["norm"], found["attack"]) == (5, "linf", "APGD-CE, 50 steps")
    # 3 x 3 pixels moved by d each are 3 d away in l2.
    assert robustness_curve(Threshold(), x, labels, "l2", [0.3, 0.75, 1.05], 0)["accuracy"] == [80, 60, 40, 20]


def test_what_fell_stays_fallen_and_no_batch_is_lost():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))
    images, labels = load_dataset("digits", "train")
    x, labels = images[: BATCH + 40], model.eval()(images[: BATCH + 40]).argmax(1)
    before = {name: tensor.clone() for name, tensor in model.train().state_dict().items()}
    found = robustness_curve(model, x, labels, "linf", [0.01, 0.02], 3)
    assert found == robustness_curve(model, x, labels, "linf", [0.01, 0.02], 3)
    clean, first, second = found["accuracy"]
    assert clean == 100 > first > second > 0
    alone = correct_under_apgd(model, x, labels, ThreatModel(eps=0.02), STEPS, 3)[1]
    assert second == pytest.approx(100 * alone.float().mean().item(), abs=2)  # attacked once, or after the smaller eps
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_gallery_shows_images_within_the_threat_model():
    x, labels = greys(0.45, 0.2), torch.tensor([0, 0])
    examples = gallery(Threshold(), x, labels, THREAT, 0)
    assert (examples["prediction"].tolist(), examples["adversarial_prediction"].tolist()) == ([0, 0], [1, 0])
    assert np.abs(examples["adversarial"] - examples["x"]).max() <= THREAT.eps + 1e-6
    assert {name: array.dtype for name, array in examples.items()} == {
        "x": np.float32,
        "adversarial": np.float32,
        "labels": np.int64,
        "prediction": np.int64,
        "adversarial_prediction": np.int64,
    }


def test_a_run_leaves_curve_gallery_and_record(finished):
    file = finished / "results/tiny/robustness/students/wide/small/rslad/seed-0.json"
    found = read_json(file)
    keys = {"teacher": "wide", "student": "small", "method": "rslad", "seed": 0, "checkpoint": "best"}
    assert found.items() >= {**keys, "eps": [0, 0.1, 0.2], "images": 24}.items()
    assert found["gallery"] == {"attack": "PGD-20", "eps": 0.15, "images": 2}
    assert found["accuracy"] == sorted(found["accuracy"], reverse=True)
    model = load_model(finished / "results/tiny/students/wide/small/rslad/seed-0/best.safetensors")
    images, labels = load_dataset("digits", "test")
    right = (model(images[:24]).argmax(1) == labels[:24]).sum().item()
    assert found["accuracy"][0] == 100 * right / 24
    with np.load(file.with_suffix(".npz"), allow_pickle=False) as examples:
        assert torch.equal(torch.from_numpy(examples["x"]), images[:2])
        assert examples["labels"].tolist() == labels[:2].tolist()
        attacked = model(torch.from_numpy(examples["adversarial"])).argmax(1)
        assert examples["adversarial_prediction"].tolist() == attacked.tolist()
    record = read_json(file.with_name("seed-0.record.json"))
    outputs = {finished / path: digest for path, digest in record["outputs"].items()}
    assert set(outputs) == {file, file.with_suffix(".npz")}
    assert all(sha256(path) == digest for path, digest in outputs.items())
    teacher = read_json(finished / "results/tiny/robustness/teachers/wide.json")
    assert (teacher["student"], teacher["method"]) == ("-", "trades")
