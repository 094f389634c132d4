"""Intervals, comparisons and verdicts: against other formulas, by simulation, and against each other."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY
from scipy import stats

from robust_distillation.comparison import Comparison
from robust_distillation.statistics import verdicts
from robust_distillation.statistics.comparing import Outcomes, comparisons
from robust_distillation.statistics.intervals import expected_mean_squares, half_width, mean_squares, p_value

METRICS = ["clean", "pgd20"]
LEVELS = (0.05, 0.05 / 28)


def example(seeds: int = 4, images: int = 50, effect: float = 0.3) -> np.ndarray:
    random = np.random.default_rng(3)
    latent = random.normal(size=(seeds, images)) + random.normal(size=images) + effect * random.normal(size=(seeds, 1))
    return latent > 0


def outcomes_of(runs: dict[tuple, np.ndarray]) -> pd.DataFrame:
    names = ["teacher", "student", "method", "seed", "checkpoint"]
    parts = [
        pd.DataFrame({"index": range(len(correct)), "pgd20": correct})
        .assign(label=0, prediction=0, block=0, attack_seed=0)
        .assign(**dict(zip(names, keys, strict=True)))
        for keys, correct in runs.items()
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def test_mean_squares_against_sums_written_out():
    x = example().astype(float)
    seeds, images = x.shape
    mean = x.mean()
    of_seeds = sum(images * (x[s].mean() - mean) ** 2 for s in range(seeds)) / (seeds - 1)
    of_images = sum(seeds * (x[:, i].mean() - mean) ** 2 for i in range(images)) / (images - 1)
    rest = sum((x[s, i] - x[s].mean() - x[:, i].mean() + mean) ** 2 for s in range(seeds) for i in range(images)) / (
        (seeds - 1) * (images - 1)
    )
    assert mean_squares(x)[:2] == (seeds, images)
    assert mean_squares(x)[2:] == pytest.approx((mean, of_seeds, of_images, rest))


@pytest.mark.parametrize("alpha", LEVELS)
@pytest.mark.parametrize("effect", [0.0, 0.3, 3.0])
def test_half_width_is_the_longest_of_its_parts(effect, alpha):
    found = mean_squares(example(effect=effect))
    a, b, e, cells = found.of_seeds, found.of_images, found.rest, 4 * 50
    seeds = stats.t.ppf(1 - alpha / 2, 3) * math.sqrt(a / cells)
    together = max(a + b - e, a, b)
    df = min(max(together**2 / (a**2 / 3 + b**2 / 49 + e**2 / 147), 3), 49)
    both = stats.t.ppf(1 - alpha / 2, df) * math.sqrt(together / cells)
    assert half_width(found, alpha) == pytest.approx(max(seeds, both, 1 - (alpha / 2) ** (1 / 50)))


def test_one_seed_speaks_of_images_alone():
    x = example(1)
    half = stats.t.ppf(0.975, 49) * x.std(ddof=1) / math.sqrt(50)
    assert half_width(mean_squares(x)) == pytest.approx(half)


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("seeds", [1, 3])
def test_equal_outcomes_have_the_exact_binomial_bound(seeds, value):
    half = float(half_width(mean_squares(np.full((seeds, 300), value))))
    low, high = stats.binomtest(300 * value, 300).proportion_ci(0.95)  # Clopper and Pearson
    assert half == pytest.approx(high - low)


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_p_and_interval_never_disagree(seeds):
    random = np.random.default_rng(seeds)
    chances = random.uniform(0, 0.4, size=(300, 1, 1)) * (random.random((300, 1, 1)) < 0.9)
    found = mean_squares(
        (random.random((300, seeds, 40)) < chances).astype(int) - (random.random((300, seeds, 40)) < 0.1)
    )
    p = p_value(found)
    for alpha in (0.5, *LEVELS, 1e-6):
        assert ((p < alpha) == (np.abs(found.mean) > half_width(found, alpha))).all(), alpha


@pytest.fixture(scope="module")
def coverage():
    spec = importlib.util.spec_from_file_location("coverage", REPOSITORY / "benchmarks/coverage.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("paired", [False, True], ids=["accuracy", "difference"])
@pytest.mark.parametrize("regime", ["images", "between", "seeds"])
def test_intervals_hold_the_truth_as_often_as_they_say(coverage, regime, paired):
    for seeds in (3, 5):
        shares = coverage.coverage(seeds, coverage.REGIMES[regime], paired, 0.05, 1000, 0, images=100)
        assert 0.92 <= shares["components"] <= 0.99, (seeds, shares)
        strict = coverage.coverage(seeds, coverage.REGIMES[regime], paired, 0.05 / 28, 1000, 0, images=100)
        assert strict["components"] >= 0.993


def test_simulation_tells_the_wrong_methods(coverage):
    assert coverage.coverage(5, 0.02, False, 0.05, 500, 0)["t over seeds"] < 0.85
    assert coverage.coverage(3, 0.5, False, 0.05, 250, 250, images=100)["bootstrap over seeds"] < 0.88


def compared(runs: dict[tuple, np.ndarray], methods: list[str]) -> pd.DataFrame:
    return comparisons(Outcomes.of(outcomes_of(runs)), [Comparison("big", "small")], methods, ["best"], METRICS)


def test_comparisons_are_paired_by_seed_and_image_and_corrected():
    correct = {
        method: example(4) ^ (np.random.default_rng(k).random((4, 50)) < 0.1 * k) for k, method in enumerate("abc")
    }
    runs = {
        (("none" if method == "a" else "big"), "small", method, seed, "best"): correct[method][place]
        for method, seeds in (("a", (0, 1, 2, 3)), ("b", (3, 0, 2)), ("c", (1, 7, 2, 3)))
        for place, seed in enumerate(seeds)
    }
    runs["other", "small", "b", 0, "best"] = correct["b"][0]
    table = compared(runs, ["a", "b", "c"])
    assert len(table) == 2 * 3
    row = table.set_index(["metric", "method", "other"]).loc["pgd20", "c", "b"]
    x = correct["c"][[2, 3]].astype(int) - correct["b"][[2, 0]]  # seeds 2 and 3
    found = mean_squares(x)
    assert (row["n_seeds"], row["n_images"], row["comparisons"]) == (2, 50, 3)
    assert row["difference"] == pytest.approx(100 * x.mean())
    half = 100 * half_width(found, 0.05 / 3)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(
        (max(100 * x.mean() - half, -100), min(100 * x.mean() + half, 100))
    )
    assert row["p_adjusted"] == pytest.approx(min(1, 3 * p_value(found)))
    assert ((table["p_adjusted"] < 0.05) == ((table["ci_low"] > 0) | (table["ci_high"] < 0))).all()


def test_methods_without_a_common_seed_are_not_compared():
    runs = {("big", "small", "a", 0, "best"): example()[0], ("big", "small", "b", 1, "best"): example()[1]}
    assert compared(runs, ["a", "b"]).empty


def differences(mean: float, seed_sd: float, seeds: int = 3, images: int = 200) -> np.ndarray:
    random = np.random.default_rng(5)
    first = (
        random.normal(size=(seeds, images))
        + random.normal(size=images)
        + mean
        + seed_sd * random.normal(size=(seeds, 1))
    )
    return (first > 0).astype(int) - (random.normal(size=(seeds, images)) > 0)


def test_verdicts_from_the_interval():
    clear = verdicts.estimate_from_squares(mean_squares(np.ones((3, 200))), 0.01)
    assert verdicts.verdict(clear, ">", 0) == verdicts.SUPPORTED
    assert verdicts.verdict(clear, "<", 0) == verdicts.REFUTED
    same = verdicts.estimate_from_squares(mean_squares(np.zeros((3, 200))), 0.01)
    assert verdicts.verdict(same, ">", 0) == verdicts.INCONCLUSIVE
    assert verdicts.verdict(same, ">", -0.05) == verdicts.SUPPORTED  # not worse by five points
    assert verdicts.verdict(same, ">", 0.05) == verdicts.REFUTED


def test_seeds_needed_is_the_first_number_that_decides():
    x = differences(0.3, 0.3)
    found = mean_squares(x)
    estimate = verdicts.estimate_from_squares(mean_squares(x), 0.01)
    assert verdicts.verdict(estimate, ">", 0) == verdicts.INCONCLUSIVE
    needed = verdicts.seeds_needed(estimate, 0)
    assert needed > 3
    assert half_width(expected_mean_squares(found, needed), 0.01) < abs(x.mean())
    assert all(half_width(expected_mean_squares(found, n), 0.01) >= abs(x.mean()) for n in range(4, needed))


def test_images_that_forbid_a_verdict_are_counted():
    x = np.repeat(np.array([[1] * 22 + [-1] * 18 + [0] * 60]), 3, axis=0)
    said = verdicts.seeds_needed(verdicts.estimate_from_squares(mean_squares(x), 0.05), 0)
    assert said.startswith("no number with these images; at least ")
    needed = int(said.split()[-4])
    variance = x[0].var(ddof=1)
    assert stats.t.ppf(0.975, needed - 1) * math.sqrt(variance / needed) < 0.04
    assert stats.t.ppf(0.975, needed - 2) * math.sqrt(variance / (needed - 1)) >= 0.04
    assert verdicts.seeds_needed(verdicts.estimate_from_squares(mean_squares(np.zeros((3, 9))), 0.05), 0).startswith(
        "no number: the estimate"
    )


def test_numbers_of_seeds_have_a_paired_t_interval():
    values = np.array([0.10, 0.30, 0.25])
    found = verdicts.estimate_from_values(values, 0.05)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high))
    needed = verdicts.seeds_needed(found, 0)
    sd = values.std(ddof=1)
    assert needed == next(n for n in range(4, 50) if stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n) < values.mean())


def test_no_torch_is_imported():
    code = (
        "import sys; from robust_distillation.reporting import claims, comparisons; "
        "from robust_distillation.statistics import comparing, intervals, verdicts; print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_tables_of_the_tiny_experiment(finished):
    folder = finished / "results/tiny/tables"
    comparing = pd.read_csv(folder / "comparisons.csv")
    assert len(comparing) == 3 * 2 * 3  # pairs of methods, checkpoints, metrics
    assert set(comparing["comparisons"]) == {3}
    claims = pd.read_csv(folder / "claims.csv").set_index("claim")
    assert set(claims["verdict"]) == {"inconclusive"}
    assert set(claims["seeds_needed"]) == {"at least 2: one seed says nothing of others"}
    main = pd.read_csv(folder / "main.csv").set_index(["method", "checkpoint", "metric"])["mean"]
    expected = main["rslad", "best", "pgd20"] - main["natural", "best", "pgd20"]
    assert claims.loc["rslad-natural", "difference"] == pytest.approx(expected, abs=1e-3)
    structure = pd.read_csv(folder / "structure.csv").set_index(["method", "checkpoint", "metric"])["mean"]
    expected = [structure[method, "best", "correlation_distance"] for method in ("gacd", "rslad")]
    assert claims.loc["gacd-structure", "difference"] == pytest.approx(expected[0] - expected[1], abs=1e-3)
    for name in ("comparisons", "claims"):
        assert (folder / f"{name}.md").read_text().count("|") > 20
        assert r"\end{longtable}" in (folder / f"{name}.tex").read_text()
