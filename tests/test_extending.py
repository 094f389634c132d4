"""The seven examples of docs/extending.md: each touches the files that the page lists and no others, and works."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import PEOPLE, REPOSITORY, TINY, environment, fresh_tree, snakemake
from ruamel.yaml import YAML
from test_docs import blocks

from robust_distillation import attacks, data, models
from robust_distillation.errors import UserError
from robust_distillation.models import checkpoint

PAGE = (REPOSITORY / "docs/extending.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## I want to add an? (\w+)\n(.*?)(?=^## |\Z)", PAGE, flags=re.M | re.S))
USE = """
import numpy as np
import torch

from robust_distillation import data, load_dataset, metrics
from robust_distillation.attacks import registry
from robust_distillation.augmentations import from_settings
from robust_distillation.metrics.contract import Predictions
from robust_distillation.models.checkpoint import build_model
from robust_distillation.models.output import output
from robust_distillation.settings import ThreatModel

images, labels = load_dataset("bloodmnist", "validation")
print(*images.shape, *(round(255 * v) for v in images[5, :, 2, 3].tolist()), labels[5].item(), len(labels))
model = build_model({"name": "mlp", "width": 5, "depth": 2}, (3, 28, 28), 8).eval()
made = output(model, images[:4])
print(*made.logits.shape, *made.features.shape, torch.equal(made.logits, model(images[:4])))
threat = ThreatModel(norm="linf", eps=0.1)
found = registry.module("margin_pgd").attack(model, images[:4], labels[:4], threat, 0)
print(bool((found - images[:4]).abs().max() <= 0.1 + 1e-6), not torch.equal(found, images[:4]))
labels, predicted = np.array([0, 0, 1, 1]), np.array([[0, 1, 0, 1], [1, 1, 0, 0]])
right = predicted == labels
found = Predictions(labels, right, right, predicted, np.array([[0.95, 0.95, 0.4, 0.95], [0.95, 0.95, 0.5, 0.9]]))
print(metrics.get("confident_errors.clean").measure(found).tolist())
grey = torch.full((3000, 3, 28, 28), 5, dtype=torch.uint8)
options, info = {"name": "invert", "cache": "records", "probability": 0.2}, data.info("bloodmnist")
ids = torch.arange(3000)
views = from_settings(options).views(info, 2, 0, 3).apply(grey, ids, 0 * ids)
inner = views[:, :, 5:20, 5:20].flatten(1)  # no zeros of the padding
kept = int((inner == 5).all(1).sum())
print(2310 < kept < 2490, kept + int((inner == 250).all(1).sum()) == 3000, bool((views == 0).any()))
"""
USE_TABLE = """
from dataclasses import fields

import pandas as pd

from robust_distillation import config
from robust_distillation.evaluation.outcomes import write_outcomes
from robust_distillation.pipeline.models import models
from robust_distillation.pipeline.step import called
from robust_distillation.pipeline.steps import Report, ReportWorstSeed, Track, outcomes, steps
from robust_distillation.reporting.report import page, worst_seed
from robust_distillation.files import read_table
from robust_distillation.reporting.report.report_data import ReportData

experiment = config.load("params.yaml", "tiny.yaml")
[step] = [step for step in steps(experiment) if isinstance(step, ReportWorstSeed)]
assert list(step.inputs) == outcomes(experiment)
assert step.outputs[0] in Report(experiment).inputs
assert step.outputs[0] in Track(experiment).inputs
assert worst_seed.section in page.SECTIONS
for model, file in zip(models(experiment), step.inputs, strict=True):
    run = model.run  # None for a teacher
    seed, names = run.seed if run else 0, (run.teacher, run.student, run.method) if run else (model.name, "-", "trades")
    right = 3 - seed  # of four images; under attack one fewer
    named = dict(zip(("teacher", "student", "method"), names)) | dict(seed=seed, checkpoint="best", label=1, block=0)
    rows = [dict(named, index=i, attack_seed=0, prediction=int(i < right), fgsm=i < right - 1) for i in range(4)]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_outcomes(file, pd.DataFrame(rows))
called(step.run)(step)
print(step.outputs[0].read_text())
report = ReportData(**{field.name: None for field in fields(ReportData)} | {
    "tables": {"worst-seed": read_table(step.outputs[0])}
})
for row in worst_seed.section(report).groups[0].parts[0].rows:
    print(*[cell.text for cell in row])
"""


def code(section: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", SECTIONS[section], flags=re.M | re.S)


def listed(section: str) -> list[str]:
    """The files that the page says are touched, new ones first."""
    return re.findall(r"`(src/[\w/.]+)`", re.search(r"^Files: (.*?)\n\n", SECTIONS[section], flags=re.M | re.S)[1])


def patched(text: str, diff: str) -> str:
    """`text` with every hunk of a diff block applied; a hunk must fit exactly one place."""
    for hunk in diff.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        old, new = ("".join(line[1:] for line in lines if line[0] in kinds) for kinds in (" -", " +"))
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def git(tree: Path, *arguments: str) -> str:
    command = ["git", "-c", "core.quotePath=false", *arguments]
    return subprocess.run(
        command, cwd=tree, env=environment(tree) | PEOPLE, check=True, capture_output=True, text=True
    ).stdout


def in_tree(tree: Path, *arguments: str) -> str:
    made = subprocess.run(
        [sys.executable, *arguments], cwd=tree, env=environment(tree), capture_output=True, text=True, timeout=300
    )
    assert made.returncode == 0, made.stdout + made.stderr
    return made.stdout


@pytest.fixture(scope="module")
def committed(tmp_path_factory) -> Path:
    tree = fresh_tree(tmp_path_factory.mktemp("extending") / "tree")
    shutil.copy(REPOSITORY / ".gitignore", tree)
    for command in ("init --quiet", "add --all", "commit --quiet --message Before"):
        git(tree, *command.split())
    return tree


@pytest.fixture
def tree(committed) -> Path:
    """A repository without a change."""
    git(committed, "clean", "-dfxq")
    git(committed, "checkout", "--quiet", ".")
    return committed


def add(tree: Path, section: str, module: str) -> None:
    """Writes the example of a section into the tree, and compares what changed with the page's list."""
    (tree / listed(section)[0]).write_text(module, encoding="utf-8")
    for name, diff in re.findall(r"^In `(\S+)`.*?```diff\n(.*?)^```", SECTIONS[section], flags=re.M | re.S):
        (tree / name).write_text(patched((tree / name).read_text(encoding="utf-8"), diff), encoding="utf-8")
    changed = git(tree, "status", "--porcelain", "--untracked-files=all").splitlines()
    assert sorted(line[3:] for line in changed) == sorted(listed(section))
    assert [line[:2] for line in changed].count("??") == 1


def test_the_page_has_the_seven():
    assert list(SECTIONS) == ["method", "attack", "metric", "dataset", "architecture", "augmentation", "table"]
    assert [len(listed(name)) for name in SECTIONS] == [1, 1, 1, 1, 1, 1, 3]


@pytest.mark.slow
def test_what_is_one_file_is_planned_and_works(tree):
    method, attack, metric = blocks("own-method.md", "python")
    modules = {"method": method, "attack": attack, "metric": metric}
    for section in ("dataset", "architecture", "augmentation"):
        [modules[section]] = code(section, "python")
    overlay = {"transfer": None}  # to digits, which no network for colour images can be transferred to
    for section, module in modules.items():
        add(tree, section, module)
        git(tree, "add", "--all")
        git(tree, "commit", "--quiet", "--message", section)
        for key, value in YAML(typ="safe").load(code(section, "yaml")[0]).items():
            overlay[key] = {**overlay.get(key, {}), **value}
    YAML().dump(overlay, tree / "overlay.yaml")
    command = ["-m", "robust_distillation.cli", "plan", "--experiment", "params.yaml", "--overlay", "overlay.yaml"]
    plan = in_tree(tree, *command)
    assert re.search(r"^half +half +logits \(cache\) +6$", plan, flags=re.M)  # two students, three seeds
    assert "attacks: fgsm, margin_pgd, autoattack on" in plan
    assert "metrics: confident_errors.margin_pgd, worst_class.margin_pgd" in plan
    assert "11959 training images, augmented by invert (a view an epoch)" in plan
    assert "students: small, flat;" in plan

    sizes = {"train": 11959, "val": 1712, "test": 3421}
    arrays = {f"{name}_images": np.zeros((size, 28, 28, 3), dtype=np.uint8) for name, size in sizes.items()}
    arrays |= {f"{name}_labels": np.arange(size, dtype=np.uint8)[:, None] % 8 for name, size in sizes.items()}
    arrays["val_images"][5, 2, 3] = 10, 20, 30  # row, column
    (tree / "data").mkdir()
    np.savez(tree / "data/bloodmnist.npz", **arrays)
    assert in_tree(tree, "-c", USE).splitlines() == [
        "1712 3 28 28 10 20 30 5 1712",
        "4 8 4 5 True",
        "True True",
        "[0.25, 0.5]",
        "True True True",
    ]


@pytest.mark.slow
def test_a_table_is_made_and_shown(tree):
    """Runs a rule and a command that follow from the declaration of a step."""
    add(tree, "table", *code("table", "python"))
    made = "results/tiny/tables/worst-seed.csv"
    rules = snakemake(tree, "-n", made)
    assert rules.returncode == 0, rules.stdout + rules.stderr
    assert re.search(r"rule report_worst_seed:\n.*\n +output: .*worst-seed\.csv", rules.stdout + rules.stderr)
    assert "worst seeds" in in_tree(tree, "-m", "robust_distillation.cli", "report-worst-seed", "--help")
    (tree / "tiny.yaml").write_text(TINY.replace("seeds: [0]", "seeds: [0, 1]"))
    text = in_tree(tree, "-c", USE_TABLE)
    assert "wide,-,trades,best,clean,75.0\nwide,-,trades,best,fgsm,50.0\n" in text  # a teacher has one seed
    assert "wide,small,rslad,best,clean,50.0\nwide,small,rslad,best,fgsm,25.0\n" in text
    assert "wide small rslad best fgsm 25.00\n" in text
    assert all((tree / made).with_suffix(ending).stat().st_size for ending in (".csv", ".md", ".tex"))


# Mistakes in a module of one's own


@pytest.fixture
def entry(tmp_path, monkeypatch):
    """A function that registers source text as the module of an entry `own`, and returns its file."""

    def register(registry, text: str) -> Path:
        file = tmp_path / "own_entry.py"
        file.write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "own_entry", raising=False)
        monkeypatch.setitem(registry.modules, "own", "own_entry")
        return file

    return register


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def make(shape, classes): ...", r"own_entry.py has no function build"),
        ("\ndef build(shape, classes, width=3): ...", r"own_entry.py \(line 2\) gives build other arguments"),
        ("def build(shape, classes, *, width): ...", r"line 1: the argument width of build has no literal default"),
        ("def build(shape, classes, *, width=int(3)): ...", r"line 1: the argument width of build has no literal"),
    ],
)
def test_an_architecture_without_a_readable_build_is_refused(entry, text, message):
    entry(models.registry, text)
    with pytest.raises(UserError, match=rf"^architecture 'own': .*{message}"):
        models.arguments("own")


@pytest.mark.parametrize(
    ("parts", "lacking"),
    [
        ("self.head = nn.Linear(2, 2); self.features = nn.Flatten()", "lacks classifier, the torch.nn.Linear"),
        ("self.classifier = nn.Sequential(nn.Linear(2, 2)); self.features = nn.Flatten()", "lacks classifier"),
        ("self.classifier = nn.Linear(2, 2)", r"lacks features\(x\)"),
    ],
)
def test_a_network_without_features_and_classifier_is_refused(entry, parts, lacking):
    lines = ["from torch import nn", "class Net(nn.Module):", "    def __init__(self):", "        super().__init__()"]
    entry(models.registry, "\n".join([*lines, f"        {parts}", "def build(shape, classes): return Net()\n"]))
    with pytest.raises(UserError, match=rf"^architecture own: .*own_entry\.py: the network .* {lacking}"):
        checkpoint.build_model({"name": "own"}, (1, 1, 2), 2)


@pytest.mark.parametrize(
    ("registry", "text", "lacking"),
    [
        (data.registry, "def info(options): ...\ndef read(split, options): ...", "check, fetch"),
        (attacks.registry, "def run(): ...", "attack"),
        (models.registry, "build = 3", "build"),
    ],
)
def test_a_module_without_a_required_function_is_refused(entry, registry, text, lacking):
    file = entry(registry, text)
    with pytest.raises(UserError, match=rf"^{registry.kind} 'own': {file} does not define {lacking}\."):
        registry.module("own")


@pytest.mark.parametrize("text", ['NORMS = ("linf",)', 'NORMS: tuple[str, ...] = ("linf",)'])
def test_a_constant_is_read_with_and_without_an_annotation(entry, text):
    entry(attacks.registry, text)
    assert attacks.registry.constant("own", "NORMS", ("linf", "l2")) == ("linf",)


@pytest.mark.parametrize("text", ["NORMS = tuple(['linf'])", "NORMS: tuple"])
def test_a_constant_that_is_no_literal_is_refused(entry, text):
    entry(attacks.registry, "\n" + text)
    with pytest.raises(UserError, match=r"own_entry\.py, line 2: the value of NORMS must be a literal"):
        attacks.registry.constant("own", "NORMS", ("linf", "l2"))
