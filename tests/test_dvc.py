"""The DVC stage: it runs the workflow, versions what came out, and prints the headline numbers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

from conftest import REPOSITORY, environment
from ruamel.yaml import YAML

from robust_distillation.files import read_json


def run(tree, *command: str) -> str:
    variables = environment(tree) | {"DVC_NO_ANALYTICS": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}
    result = subprocess.run(command, cwd=tree, env=variables, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_repro_versions_the_results_and_shows_the_headline_numbers(tree):
    dvc = (sys.executable, "-m", "dvc")
    stage = (REPOSITORY / "dvc.yaml").read_text().replace("results/digits", "results/tiny")
    (tree / "dvc.yaml").write_text(stage.replace("params.yaml\n    deps", "params.yaml overlay=tiny.yaml\n    deps"))
    for name in (".gitignore", ".dvcignore"):
        shutil.copy(REPOSITORY / name, tree / name)
    run(tree, "git", "init", "-q")
    run(tree, *dvc, "init", "-q")

    assert "Nothing to be done" in run(tree, *dvc, "repro")
    lock = YAML(typ="safe").load((tree / "dvc.lock").read_text())["stages"]["digits"]
    assert {out["path"] for out in lock["outs"]} >= {"results/tiny/students", "results/tiny/metrics"}
    shown = json.loads(run(tree, *dvc, "metrics", "show", "--json"))
    numbers = {path: file["data"] for source in shown.values() for path, file in source["data"].items()}
    assert set(numbers) == {str(path.relative_to(tree)) for path in (tree / "results/tiny/metrics").rglob("*.json")}
    gacd = "results/tiny/metrics/students/wide/small/gacd.json"
    assert numbers[gacd] == read_json(tree / gacd)
    assert set(numbers[gacd]) == {"clean", "pgd20"}
    assert "didn't change, skipping" in run(tree, *dvc, "repro")

    replaced = (
        (tree / "src/robust_distillation/methods/rslad.py").read_text().replace("1 - self.alpha", "2 - self.alpha")
    )
    (tree / "src/robust_distillation/methods/rslad.py").write_text(replaced)
    log = run(tree, *dvc, "repro")
    assert "Finished jobid" in log
    assert read_json(tree / gacd) == numbers[gacd]
    assert "didn't change, skipping" in run(tree, *dvc, "repro")
