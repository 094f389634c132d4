"""`robust-distillation power`: which differences an experiment can decide."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import REPOSITORY
from ruamel.yaml import YAML
from test_intervals import example, outcomes_of

from robust_distillation.cli import main
from robust_distillation.comparison import Comparison
from robust_distillation.config import load
from robust_distillation.config.parsing import deep_merge
from robust_distillation.evaluation.outcomes import read_outcomes, write_outcomes
from robust_distillation.pipeline.steps import Compare
from robust_distillation.statistics.comparing import Outcomes, paired
from robust_distillation.statistics.estimates import Estimate

PAIR = Comparison("wide", "small")
OVERLAY = """
tuning: ~
compare_to: sat
transfer: ~
structure: ~
robustness: ~
seeds: [0, 1, 2]
evaluation: {attacks: [pgd20], checkpoints: [best], images: 50}
claims: {%s}
"""
OPTIONS = ["--experiment", "params.yaml", "--overlay", "overlay.yaml"]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Results of the default methods, made up: a table of outcomes for each network."""
    monkeypatch.chdir(tmp_path)
    methods = ["natural", "sat", "trades", "mart", "ard", "iad", "rslad", "gacd"]
    (tmp_path / "params.yaml").write_text((REPOSITORY / "params.yaml").read_text())
    none = "".join(f"{name}: ~, " for name in load("params.yaml").file.claims)
    (tmp_path / "overlay.yaml").write_text(OVERLAY % f"{none}one: rslad > ard on pgd20, two: gacd < sat on clean")
    experiment = load("params.yaml", "overlay.yaml")
    files = Compare(experiment).evidence[""]
    for file in files:
        names = file.with_suffix("").parts[file.parts.index("outcomes") + 1 :]
        method = names[3] if names[0] == "students" else "trades"
        seed = int(names[-1].removeprefix("seed-")) if names[0] == "students" else 0
        teacher, student = names[1:3] if names[0] == "students" else (names[1], "-")
        correct = np.roll(example(3, effect=0.2), methods.index(method), axis=1)[seed]
        file.parent.mkdir(parents=True, exist_ok=True)
        write_outcomes(file, outcomes_of({(teacher, student, method, seed, "best"): correct}))
    return tmp_path


def power(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["power", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def rows_of(text: str) -> list[list[str]]:
    return [re.split(r"  +", line) for line in text.splitlines()[4:]]


def test_the_smallest_difference_by_the_spread_of_the_results(folder):
    text = power(*OPTIONS, "--seeds", "3,10", "--images", "50,200")
    first, second, third, fourth = rows_of(text)
    assert first[0] == second[0] == "rslad > ard on pgd20 (Student small, teacher wide)"
    assert [row[1] for row in (first, second, third, fourth)] == ["50", "200", "50", "200"]
    experiment = load("params.yaml", "overlay.yaml")
    outcomes = Outcomes.of(read_outcomes(Compare(experiment).evidence[""]))
    models = [outcomes.find(PAIR, method, "best") for method in ("rslad", "ard")]
    shared = outcomes.shared_seeds(PAIR, experiment.methods, "best", "pgd20")
    estimate = Estimate.of(paired(*models, "pgd20"), shared, "rslad", "ard")
    for row, images in ((first, None), (second, 200)):
        expected = [100 * estimate.smallest_difference(seeds, images, 0.05 / 2) for seeds in (3, 10)]
        assert [float(cell) for cell in row[2:]] == pytest.approx(expected, rel=5e-3)
    assert float(first[2]) > float(first[3]) > float(second[3])
    now = estimate.half_width(0.025) + estimate.half_width(0.4)
    assert float(first[2]) == pytest.approx(100 * now, rel=0.2)  # the components are cut off at 0 in the prediction


def test_before_a_run_another_experiment_gives_the_spread(folder):
    yaml = YAML(typ="safe")
    files = [yaml.load(folder / name) for name in ("params.yaml", "overlay.yaml")]
    for name, merged in (("measured", deep_merge(*files)), ("new", deep_merge(*files) | {"name": "new"})):
        with (folder / f"{name}.yaml").open("w") as stream:
            yaml.dump(merged, stream)
    result = CliRunner().invoke(main, ["power", "--experiment", "new.yaml"])
    assert result.exit_code == 2
    assert "is not there yet. Run new first, or name an experiment that was run: --measured FILE" in result.output
    first, second = rows_of(power("--experiment", "new.yaml", "--measured", "measured.yaml", "--seeds", "3"))
    assert (first[1], second[1]) == ("50", "50")
    own = rows_of(power(*OPTIONS, "--seeds", "3"))
    assert float(first[2]) == pytest.approx(float(own[0][2]), rel=0.5)  # the median of all pairs against one pair


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--seeds", "1,3"], "1 is less than 2"),
        (["--seeds", "many"], "'many' is not whole numbers separated by commas"),
        (["--images", "0"], "0 is less than 1"),
    ],
)
def test_bad_numbers_get_one_message(folder, arguments, says):
    result = CliRunner().invoke(main, ["power", *OPTIONS, *arguments])
    assert result.exit_code == 2
    assert says in result.output
