"""Every experiment to its final tables, on generated files in the formats of the real ones: `make tiny`.

The overlays under tests/tiny/ shrink data, widths, steps and epochs; datasets and weights go through the real loaders
and importers. `make test` has one of each shape.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pandas as pd
import pytest
from conftest import REPOSITORY, environment, fresh_tree
from generated import all_files, image_folder_files, published_weights

OVERLAYS = sorted((REPOSITORY / "tests/tiny").glob("*.yaml"))


def test_every_experiment_has_an_overlay():
    assert [path.stem for path in OVERLAYS] == sorted(path.stem for path in (REPOSITORY / "experiments").glob("*.yaml"))


@pytest.mark.tiny
@pytest.mark.parametrize("name", [path.stem for path in OVERLAYS])
def test_experiment_runs_to_its_tables(name, tmp_path):
    tree = fresh_tree(tmp_path / "tree")
    generated = tree / "generated"
    all_files(generated)
    image_folder_files(generated / "images10", tuple("abcdefghij"), train=100)
    published_weights(generated)
    files = [REPOSITORY / f"experiments/{name}.yaml", REPOSITORY / f"tests/tiny/{name}.yaml"]
    command = [sys.executable, "-m", "robust_distillation.cli", "reproduce"]
    command += ["--experiment", f"experiments/{name}.yaml", "--overlay", str(files[1])]
    result = subprocess.run(command, cwd=tree, env=environment(tree), capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-20000:]
    results = tree / "results/tiny"
    main = pd.read_csv(results / "tables/main.csv")
    matrix = json.loads(subprocess.run(
        [sys.executable, "-c", MATRIX, *map(str, files)], cwd=tree, env=environment(tree), check=True,
        capture_output=True, text=True,
    ).stdout)  # fmt: skip
    runs = {tuple(run) for run in matrix["runs"]}
    students = main[main["student"] != "-"]
    assert set(students[["teacher", "student", "method"]].itertuples(index=False, name=None)) == runs
    assert set(main["metric"]) - set(matrix["further"]) == set(matrix["metrics"])
    assert set(main["protocol"]) == {matrix["protocol"]}
    assert main["mean"].between(0, 100).all()
    assert main["published"].notna().any() == bool(matrix["published"])
    for table in (*matrix["tables"], *matrix["analyses"]):
        for suffix in ("csv", "md", "tex"):
            assert (results / f"tables/{table}.{suffix}").stat().st_size > 100, table
        assert len(pd.read_csv(results / f"tables/{table}.csv")) > 0, table


MATRIX = """
import json, sys
from robust_distillation.config import load
e = load(*sys.argv[1:])
print(json.dumps({**e.matrix(), "runs": [(r.teacher, r.student, r.method) for r in e.runs],
    "analyses": ["structure"] * bool(e.file.structure) + [f"transfer-{t}" for t in e.file.transfer]}))
"""
