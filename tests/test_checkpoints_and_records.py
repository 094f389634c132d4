"""Checkpoints, fingerprints, records: what stands beside a number."""

from __future__ import annotations

import pickle

import pytest
import torch

from robust_distillation import load_model, models
from robust_distillation.errors import UserError
from robust_distillation.files import atomic_write, read_json, sha256
from robust_distillation.models.checkpoint import build_model, read_checkpoint, save_checkpoint


def small(name: str) -> dict:
    """The smallest model of an architecture."""
    settings = {key: min(argument.choices or (2,)) for key, argument in models.arguments(name).items()}
    return {"name": name, **settings}


@pytest.mark.parametrize("name", [name for name in models.names() if name != "robustbench"])  # an optional package
@pytest.mark.parametrize(("shape", "classes"), [((1, 8, 8), 10), ((3, 32, 32), 7)])
def test_every_architecture_maps_images_to_logits_through_its_features(name, shape, classes, tmp_path):
    architecture = small(name)
    model = build_model(architecture, shape, classes, seed=3).eval()
    x = torch.rand(2, *shape)
    features = model.features(x)
    assert features.shape == (2, model.classifier.in_features)
    assert torch.equal(model(x), model.classifier(features))
    assert model(x).shape == (2, classes)
    about = {"architecture": architecture, "dataset": {"shape": list(shape), "classes": list(range(classes))}}
    save_checkpoint(tmp_path / "model.safetensors", model.state_dict(), about)
    assert torch.equal(load_model(tmp_path / "model.safetensors")(x), model(x))
    again, other = (build_model(architecture, shape, classes, seed) for seed in (3, 4))
    assert torch.equal(again.classifier.weight, model.classifier.weight)
    assert not torch.equal(other.classifier.weight, model.classifier.weight)


def test_checkpoint_of_a_run_describes_itself(finished):
    path = finished / "results/tiny/students/wide/small/rslad/seed-0/best.safetensors"
    _, about = read_checkpoint(path)
    assert about["architecture"] == {"name": "convnet", "width": 4, "stages": 2, "depth": 2}
    assert about["method"].items() >= {"name": "rslad", "alpha": 5 / 6, "temperature": 1.0}.items()
    assert about["threat_model"] == {"norm": "linf", "eps": 0.15}
    assert (about["protocol"], about["seed"], about["checkpoint"], about["role"]) == (
        "controlled",
        0,
        "best",
        "student",
    )
    assert about["dataset"]["name"] == "digits"
    assert about["hashes"]["results/tiny/cache/wide/logits.npy"] == sha256(
        finished / "results/tiny/cache/wide/logits.npy"
    )
    model = load_model(path)
    assert not model.training
    assert model(torch.rand(3, 1, 8, 8)).shape == (3, 10)


def test_foreign_and_broken_checkpoints_are_refused(tmp_path, finished):
    good = finished / "results/tiny/teachers/wide/best.safetensors"
    path = tmp_path / "model.safetensors"
    with pytest.raises(UserError, match="no such file"):
        load_model(path)
    path.write_bytes(good.read_bytes()[:-100])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        load_model(path)
    path.write_bytes(pickle.dumps({"weights": [1, 2, 3]}))
    with pytest.raises(UserError, match="not a whole safetensors file"):
        load_model(path)
    state, about = read_checkpoint(good)
    save_checkpoint(path, state, {**about, "architecture": {"name": "convnet", "width": 5}})
    with pytest.raises(UserError, match="do not fit its own description"):
        load_model(path)


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    with pytest.raises(KeyboardInterrupt), atomic_write(path) as temporary:  # noqa: PT012
        temporary.write_text("ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_record_tells_what_was_used(finished):
    record = read_json(finished / "results/tiny/students/wide/small/gacd/seed-0/record.json")
    assert record["teacher_served_from"] == {"logits on clean views": "cache", "features on clean views": "cache"}
    assert record["settings"]["method"]["negatives"] == 16
    for group in ("inputs", "outputs"):
        assert record[group]
        assert all(sha256(finished / path) == digest for path, digest in record[group].items())
    assert record["versions"]["torch"].startswith("2.14.1")
    assert record["time"]["seconds"] > 0
    alone = read_json(finished / "results/tiny/students/none/small/natural/seed-0/record.json")
    assert alone["teacher_served_from"] == {}
