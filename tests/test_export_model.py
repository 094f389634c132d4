"""A model handed on: every architecture as plain torch and as ONNX, and a real run's folder without this package."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys

import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from ruamel.yaml import YAML
from safetensors.torch import load_file

from robust_distillation import load_dataset, load_model, models
from robust_distillation.cli import main
from robust_distillation.errors import UserError
from robust_distillation.export.architecture import standalone_source
from robust_distillation.export.onnx import agreement, write_onnx
from robust_distillation.files import sha256
from robust_distillation.models.checkpoint import build_model
from robust_distillation.models.normalised import Normalised

RUN = "wide/small/rslad/seed-0"
NORMALISATION = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
# Runs the card's code where this package cannot be imported.
APART = """
import sys
class Apart:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "robust_distillation":
            raise ImportError("not here")
sys.meta_path.insert(0, Apart())
try:
    import robust_distillation
    sys.exit("it is here")
except ImportError:
    pass
"""


@pytest.mark.parametrize("name", [name for name in models.names() if name != "robustbench"])  # needs its package
@pytest.mark.slow
def test_every_architecture_stands_alone_and_becomes_onnx(name, tmp_path):
    arguments = {key: min(argument.choices or (2,)) for key, argument in models.arguments(name).items()}
    shape, classes = (3, 16, 16), 7
    network = build_model({"name": name, **arguments}, shape, classes, seed=1).eval()
    model = Normalised(network, **NORMALISATION).eval()
    images = torch.rand(5, *shape)
    (tmp_path / "architecture.py").write_text(standalone_source(name, normalised=True))
    alone = runpy.run_path(str(tmp_path / "architecture.py"))
    assert "robust_distillation" not in (tmp_path / "architecture.py").read_text()
    rebuilt = alone["build"](shape, classes, **arguments)
    rebuilt.load_state_dict(network.state_dict())
    assert torch.equal(alone["Normalised"](rebuilt, **NORMALISATION).eval()(images), model(images))
    write_onnx(model, shape, tmp_path / "model.onnx")
    assert agreement(model, tmp_path / "model.onnx", images).same_predictions == 5
    assert b"site-packages" not in (tmp_path / "model.onnx").read_bytes()
    with torch.no_grad():
        network.classifier.bias[0] += 100
    with pytest.raises(RuntimeError, match="differs from the checkpoint"):
        agreement(model, tmp_path / "model.onnx", images)


def test_what_needs_another_package_is_refused():
    with pytest.raises(
        UserError, match="architecture robustbench: its file cannot stand alone, for it imports robust_"
    ):
        standalone_source("robustbench", normalised=False)


def export(*arguments: str):
    options = ["--experiment", "params.yaml", "--overlay", "tiny.yaml"]
    return CliRunner().invoke(main, ["export", "model", *arguments, *options])


def test_an_exported_student_needs_nothing_of_this_package(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(finished)
    folder, again = tmp_path / "model", tmp_path / "again"
    result = export(RUN, "--to", str(folder))
    assert result.exit_code == 0, result.output
    assert "the same 24 predictions" in result.output
    assert export(RUN, "--to", str(again)).exit_code == 0
    names = {"model.safetensors", "architecture.py", "config.json", "model.onnx", "README.md"}
    assert {file.name for file in folder.iterdir()} == names
    assert all((folder / name).read_bytes() == (again / name).read_bytes() for name in names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "model"]

    checkpoint = finished / f"results/tiny/students/{RUN}/best.safetensors"
    model, (images, labels) = load_model(checkpoint), load_dataset("digits", "test")
    images, labels = images[:24], labels[:24]
    card = (folder / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line]) <= 10
    torch.save(images, folder / "images.pt")
    after = 'torch.save(model(torch.load("images.pt", weights_only=True)), "logits.pt")\n'
    (folder / "run.py").write_text(APART + code + after)
    subprocess.run([sys.executable, "run.py"], cwd=folder, env={"PYTHONPATH": ""}, check=True)
    assert torch.equal(torch.load(folder / "logits.pt", weights_only=True), model(images))

    front = YAML(typ="safe").load(card.split("---\n")[1])
    [listed] = front["model-index"]
    metrics = {metric["name"]: metric["value"] for metric in listed["results"][0]["metrics"]}
    right = model(images).argmax(1) == labels
    assert metrics["clean accuracy"] == pytest.approx(100 * right.float().mean().item(), abs=0.01)
    stored = pd.read_parquet(finished / f"results/tiny/outcomes/students/{RUN}.parquet")
    robust_accuracy = stored[stored["checkpoint"].eq("best")]["pgd20"].mean()
    assert metrics["accuracy under pgd20, linf eps 0.15"] == pytest.approx(100 * robust_accuracy, abs=0.01)
    assert front["datasets"] == ["digits"]
    record = checkpoint.with_name("record.json")
    for known in (sha256(checkpoint), sha256(record), "Zi et al.", "validation split", "It was not attacked with Auto"):
        assert known in card
    config = json.loads((folder / "config.json").read_text())
    assert config["threat_model"] == {"norm": "linf", "eps": 0.15}
    assert load_file(folder / "model.safetensors").keys() == model.state_dict().keys()

    teacher = export("wide", "--to", str(tmp_path / "teacher"))
    assert teacher.exit_code == 0, teacher.output
    assert "TRADES (Zhang et al., ICML 2019)" in (tmp_path / "teacher/README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((RUN, "--to", "src"), "src: exists already"),
        (("wide/small/rslad/seed-9", "--to", "new"), "Did you mean 'wide/small/rslad/seed-0'?"),
        ((RUN, "--to", "new", "--checkpoint", "beast"), "Did you mean 'best'?"),
    ],
)
def test_mistakes_write_nothing(arguments, said, finished, monkeypatch):
    monkeypatch.chdir(finished)
    before = sorted(finished.iterdir())
    result = export(*arguments)
    assert result.exit_code == 2
    assert said in result.output
    assert sorted(finished.iterdir()) == before


def test_a_checkpoint_that_its_record_does_not_know_is_refused(tree, monkeypatch):
    monkeypatch.chdir(tree)
    folder = tree / f"results/tiny/students/{RUN}"
    (folder / "best.safetensors").write_bytes((folder.parents[1] / "gacd/seed-0/best.safetensors").read_bytes())
    result = export(RUN, "--to", "new")
    assert result.exit_code == 2
    assert "is not the file that its record names" in result.output
    assert not (tree / "new").exists()
