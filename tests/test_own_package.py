"""A method, an attack and a metric in a package of its own, as docs/own-method.md has them: a student is trained,
attacked and measured."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import REPOSITORY, environment, fresh_tree
from test_docs import blocks

from robust_distillation.evaluation.outcomes import read_outcomes
from robust_distillation.models.checkpoint import read_checkpoint

PAGE = (REPOSITORY / "docs/own-method.md").read_text(encoding="utf-8")
SMALL = """
name: own
dataset: {{limit: {{train: 64, validation: 24}}}}
seeds: [0]
training: {{epochs: 1, milestones: [], batch_size: 32, inner_attack: {{steps: 1}}, selection: {{steps: 1}}}}
teachers: {{wide: {{width: 4, training: {{epochs: 1, milestones: []}}}}}}
students: {{small: {{width: 4}}}}
methods: {{natural: ~, sat: ~, trades: ~, mart: ~, ard: ~, iad: ~, rslad: ~, gacd: ~, {method}}}
evaluation: {{images: 8, attacks: [fgsm, {attack}], metrics: [{metric}.{attack}]}}
tuning: ~
structure: ~
robustness: ~
transfer: ~
claims: ~
"""


def entry_points() -> dict[str, dict[str, str]]:
    """The entries of the page by group: name to dotted module name."""
    lines = re.findall(r'^ +(\[project\.entry-points\..*\]|\w+ = "[\w.]+")$', PAGE, flags=re.M)
    return tomllib.loads("\n".join(lines))["project"]["entry-points"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the page's package and the metadata that pip writes when it installs one."""
    folder = tmp_path_factory.mktemp("site")
    modules = [module for group in entry_points().values() for module in group.values()]
    for module, code in zip(modules, blocks("own-method.md", "python"), strict=True):
        path = folder.joinpath(*module.split(".")).with_suffix(".py")
        path.parent.mkdir(exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(code, encoding="utf-8")
    metadata = folder / "my_package-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    sections = (
        f"[{group}]\n" + "".join(f"{name} = {module}\n" for name, module in entries.items())
        for group, entries in entry_points().items()
    )
    (metadata / "entry_points.txt").write_text("\n".join(sections))
    return folder


@pytest.mark.slow
def test_a_registered_method_attack_and_metric_train_attack_and_measure_a_student(installed, tmp_path):
    groups = entry_points()
    (method,), (attack,), (metric,) = (
        groups[f"robust_distillation.{kind}"] for kind in ("methods", "attacks", "metrics")
    )
    settings = re.search(rf"`{method}: (\{{.*?\}})`", PAGE)[1]
    tree = fresh_tree(tmp_path / "tree")
    (tree / "own.yaml").write_text(SMALL.format(method=f"{method}: {settings}", attack=attack, metric=metric))
    path = os.pathsep.join([str(tree / "src"), str(installed)])
    target = f"outcomes/students/wide/small/{method}/seed-0.parquet"
    command = ["snakemake", "--cores", "2", f"results/own/{target}", "--config", "experiment=params.yaml"]
    made = subprocess.run(
        [sys.executable, "-m", *command, "overlay=own.yaml"],
        cwd=tree,
        env=environment(tree) | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    outcomes = read_outcomes([tree / "results/own" / target])
    assert set(outcomes["method"]) == {method}
    assert len(outcomes) == 2 * 8  # checkpoints, images
    assert not (outcomes[attack] & (outcomes["prediction"] != outcomes["label"])).any()
    folder = tree / f"results/own/students/wide/small/{method}/seed-0"
    _, metadata = read_checkpoint(folder / "best.safetensors")
    assert metadata["method"]["name"] == method
    assert json.loads((folder / "record.json").read_text())["code"]
    assert json.loads((folder / "metrics.jsonl").read_text())["loss"] > 0
    code = (
        "import sys; from robust_distillation.evaluation.outcomes import read_outcomes\n"
        "from robust_distillation.statistics.accuracies import accuracies\n"
        f"print(*accuracies(read_outcomes([sys.argv[1]]), ['{metric}.{attack}'])['value'].iloc[[3, 7]])"
    )
    measured = subprocess.run(
        [sys.executable, "-c", code, tree / "results/own" / target], env=environment(tree) | {"PYTHONPATH": path},
        capture_output=True, text=True,
    )  # fmt: skip
    wrong = outcomes[f"{attack}.prediction"] != outcomes["label"]
    shares = (wrong & (outcomes[f"{attack}.confidence"] > 0.9)).groupby(outcomes["checkpoint"]).mean()
    assert measured.stdout.split() == [str(100 * share) for share in shares], measured.stderr


def test_the_package_is_not_known_where_it_is_not_installed(tmp_path):
    """The other tests of the registry see it nowhere: it is found by its metadata alone."""
    code = (
        "from robust_distillation import attacks, methods, metrics\n"
        "print(*attacks.names(), *methods.names(), *metrics.names())"
    )
    names = subprocess.run([sys.executable, "-c", code], env=environment(REPOSITORY), capture_output=True, text=True)
    assert names.returncode == 0, names.stderr
    registered = {name for group in entry_points().values() for name in group}
    assert not registered & set(names.stdout.split())
