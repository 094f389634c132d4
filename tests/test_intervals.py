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
from scipy import optimize, special, stats

from robust_distillation.comparison import Comparison
from robust_distillation.files import read_json_lines
from robust_distillation.statistics import verdicts
from robust_distillation.statistics.comparing import Outcomes, comparisons
from robust_distillation.statistics.estimates import Estimate, SeedEstimate
from robust_distillation.statistics.intervals import (
    MeanSquares,
    components,
    expected_mean_squares,
    half_width,
    holm,
    mean_squares,
    p_value,
)
from robust_distillation.statistics.sharing import SharedSeeds, shared_variances

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
    assert mean_squares(x)[2:6] == pytest.approx((mean, of_seeds, of_images, rest))


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
    own = np.array([correct[name].mean(1)[: len(seeds)].var(ddof=1) for name, seeds in (("b", "302"), ("c", "1723"))])
    of_all, degrees = shared_variances([correct["a"].mean(1).var(ddof=1), *own], [3, 2, 3])
    shared = found._replace(of_seeds=50 * of_all[1:].sum(), degrees=degrees[1:].min())
    half = 100 * max(half_width(squares, 0.05 / 3) for squares in (found, shared))  # three methods: the longer counts
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(
        (max(100 * x.mean() - half, -100), min(100 * x.mean() + half, 100))
    )
    assert row["p"] == pytest.approx(max(p_value(squares) for squares in (found, shared)))
    for _, family in table.groupby("metric"):
        assert family["p_adjusted"].tolist() == pytest.approx(holm(family["p"]).tolist())
    assert ((table["p_adjusted"] < 0.05) == ((table["ci_low"] >= 0) | (table["ci_high"] <= 0))).all()


def test_every_method_is_compared_to_the_reference():
    runs = {
        ("big", "small", method, seed, "best"): example(k + 2)[seed]
        for k, method in enumerate("abcd")
        for seed in (0, 1)
    }
    outcomes, to = Outcomes.of(outcomes_of(runs)), [Comparison("big", "small")]
    pairs = comparisons(outcomes, to, list("abcd"), ["best"], METRICS)
    found = comparisons(outcomes, to, list("abcd"), ["best"], METRICS, {to[0]: "b"})
    assert found[["method", "other"]].drop_duplicates().to_numpy().tolist() == [["a", "b"], ["c", "b"], ["d", "b"]]
    assert set(found["comparisons"]) == {3}
    assert set(pairs["comparisons"]) == {6}
    one, other = (table.set_index(["metric", "method", "other"]).loc["pgd20", "c", "b"] for table in (found, pairs))
    assert one["difference"] == other["difference"]
    assert one["p"] == other["p"]  # all methods share the variance over seeds, also those that are not compared
    assert one["ci_high"] - one["ci_low"] < other["ci_high"] - other["ci_low"]
    missing = comparisons(outcomes, to, list("abcd"), ["best"], METRICS, {to[0]: "e"})
    assert missing.equals(pairs)


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


def estimate_of(squares: MeanSquares, images: int | None = None) -> Estimate:
    return Estimate(float(squares.mean), squares.seeds, images or squares.images, [squares])


def judged(estimate: Estimate, sign: str, threshold: float) -> str:
    """The verdict on a claim that is alone."""
    return verdicts.verdict(estimate, sign, threshold, estimate.p_value(threshold))


def test_verdicts_from_the_p_value():
    clear = estimate_of(mean_squares(np.ones((3, 200))))
    assert judged(clear, ">", 0) == verdicts.SUPPORTED
    assert judged(clear, "<", 0) == verdicts.REFUTED
    same = estimate_of(mean_squares(np.zeros((3, 200))))
    assert judged(same, ">", 0) == verdicts.INCONCLUSIVE
    assert judged(same, ">", -0.05) == verdicts.SUPPORTED  # not worse by five points
    assert judged(same, ">", 0.05) == verdicts.REFUTED
    assert verdicts.verdict(clear, ">", 0, math.nan) == verdicts.INCONCLUSIVE  # one seed


def test_holm_against_the_definition():
    p = np.array([0.011, 0.6, 0.02, np.nan, 0.012])
    assert holm(p) == pytest.approx([0.055, 1, 0.06, np.nan, 0.055], nan_ok=True)
    assert holm([]).tolist() == []
    random = np.random.default_rng(0).random(7) ** 4
    for alpha in (
        0.01,
        0.05,
        0.3,
    ):  # rejects one after the other, as long as p lies below alpha / (those that are left)
        rejected, left = set(), 7
        for k in np.argsort(random):
            if random[k] > alpha / left:
                break
            rejected, left = rejected | {k}, left - 1
        assert {k for k, adjusted in enumerate(holm(random)) if adjusted <= alpha} == rejected


@pytest.mark.parametrize("mean", [0.8, -0.8])
def test_an_interval_ends_at_the_threshold_where_holm_decides_and_bonferroni_does_not(mean):
    estimate = estimate_of(mean_squares(differences(mean, 0.05)))
    alone, strict = estimate.interval(0.05, 0.04), estimate.interval(1e-6, 0.04)
    assert strict[0] <= alone[0] < alone[1] <= strict[1]
    assert 0 in strict
    assert alone[0] > 0 or alone[1] < 0
    assert estimate.interval(1e-6, 0.06)[0] < 0 < estimate.interval(1e-6, 0.06)[1]
    assert (estimate.mean > 0) == (strict[0] == 0)


def test_seeds_needed_decide_with_a_chance_of_80_percent():
    """By simulation: of experiments with so many seeds four in five decide, if the estimate is the truth."""
    x = differences(0.5, 0.3)
    found = mean_squares(x)
    estimate = estimate_of(found)
    assert verdicts.verdict(estimate, ">", 0, estimate.p_value() * 5) == verdicts.INCONCLUSIVE
    needed = verdicts.seeds_needed(estimate, 0, 0.01)
    assert needed > 3
    more = [half_width(expected_mean_squares(found, n), 0.01) for n in range(4, needed + 1)]
    error = [half_width(expected_mean_squares(found, n), 0.4) for n in range(4, needed + 1)]
    reach = np.add(more, error) < abs(x.mean())
    assert reach.tolist() == [False] * (len(reach) - 1) + [True]
    random, decided = np.random.default_rng(1), []
    of_seeds, of_images = components(found)
    for _ in range(400):
        sampled = x.mean() + math.sqrt(of_seeds) * random.normal(size=(needed, 1))
        sampled = sampled + math.sqrt(of_images) * random.normal(size=200)
        sampled = sampled + math.sqrt(found.rest) * random.normal(size=(needed, 200))
        decided.append(p_value(mean_squares(sampled)) < 0.01)
    assert 0.72 < np.mean(decided) < 0.92


def test_images_that_forbid_a_verdict_are_counted():
    x = np.repeat(np.array([[1] * 22 + [-1] * 18 + [0] * 60]), 3, axis=0)
    said = verdicts.seeds_needed(estimate_of(mean_squares(x)), 0, 0.05)
    assert said.startswith("no number with these images; at least ")
    needed = int(said.split()[-4])
    variance = x[0].var(ddof=1)

    def reach(images: int) -> float:
        return sum(stats.t.ppf(p, images - 1) for p in (0.975, 0.8)) * math.sqrt(variance / images)

    assert reach(needed) < 0.04 <= reach(needed - 1)
    assert verdicts.seeds_needed(estimate_of(mean_squares(np.zeros((3, 9)))), 0, 0.05).startswith(
        "no number: the estimate"
    )


def test_numbers_of_seeds_have_a_paired_t_interval():
    values = np.array([0.10, 0.30, 0.25])
    found = SeedEstimate(values)
    test = stats.ttest_1samp(values, 0)
    assert found.interval(0.05, 1) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert found.p_value() == pytest.approx(test.pvalue)
    assert found.p_value(0.2) == pytest.approx(stats.ttest_1samp(values, 0.2).pvalue)
    needed, sd = verdicts.seeds_needed(found, 0, 0.05), values.std(ddof=1)
    assert needed == next(
        n for n in range(4, 50)
        if sum(stats.t.ppf(p, n - 1) for p in (0.975, 0.8)) * sd / math.sqrt(n) < values.mean()
    )  # fmt: skip
    assert math.isnan(SeedEstimate(values[:1]).p_value())


# Variances that methods share


def test_shared_variances_against_smyths_formulas():
    """With the trigamma function inverted by bisection."""
    random = np.random.default_rng(4)
    own = random.chisquare(2, 8) / 2 * np.exp(2 * random.normal(size=8))
    e = np.log(own) - special.digamma(1) + np.log(1)
    excess = e.var(ddof=1) - special.polygamma(1, 1)
    half = optimize.brentq(lambda x: special.polygamma(1, x) - excess, 1e-3, 1e6)
    prior = math.exp(e.mean() + special.digamma(half) - math.log(half))
    variances, degrees = shared_variances(own, 2)
    assert excess > 0
    assert variances == pytest.approx(np.maximum((2 * half * prior + 2 * own) / (2 * half + 2), own))
    assert degrees == pytest.approx([2 * half + 2] * 8)


def test_variances_that_vary_less_than_samples_of_one_are_pooled():
    own = np.array([1.0, 1.1, 0.9, 1.05])
    variances, degrees = shared_variances(own, [2, 2, 3, 2])
    pooled = (2 * 1.0 + 2 * 1.1 + 3 * 0.9 + 2 * 1.05) / 9
    assert variances == pytest.approx([pooled, 1.1, pooled, 1.05])  # never below a method's own
    assert degrees.tolist() == [9] * 4


def test_a_method_whose_seeds_do_not_differ_neither_gives_nor_takes():
    own = np.array([0.4, 1.0, 3.0, 0.2])
    alone = shared_variances(own, 2)
    for more, degrees in ((0.0, 2), (5.0, 0)):  # no variance; one seed
        variances, found = shared_variances([*own, more], [2, 2, 2, 2, degrees])
        assert variances[:4] == pytest.approx(alone[0])
        assert found[:4] == pytest.approx(alone[1])
        assert (variances[4], found[4]) == (more, degrees)
    single = shared_variances([0.3, 0.0, 0.0], 2)
    assert (single[0].tolist(), single[1].tolist()) == ([0.3, 0, 0], [2, 2, 2])


@pytest.mark.parametrize("methods", [1, 2, 3])
def test_fewer_than_four_methods_may_only_lengthen_an_interval(methods):
    random = np.random.default_rng(2)
    for _ in range(50):
        x = random.random((2, 3, 100)) < random.random((2, 3, 1))
        values = dict(zip("abc"[: max(methods, 2)], [*x.mean(2), random.random(3)], strict=False))
        found = mean_squares(x[0].astype(float) - x[1])
        shared = SharedSeeds.of(values)
        estimate = Estimate(float(found.mean), 3, 100, shared.of_difference(found, "a", "b"))
        assert estimate.half_width(0.01) >= half_width(found, 0.01)
        assert estimate.p_value() >= p_value(found)


@pytest.mark.parametrize("regime", ["equal", "unequal", "one method apart"])
def test_all_intervals_of_a_family_hold_at_once_as_often_as_they_say(coverage, regime):
    found = coverage.family(coverage.SPREADS[regime], "half", seeds=3, methods=8, replications=1000)
    assert found.coverage >= 0.93  # 0.95 less three standard errors
    assert found.width < 0.5 * found.own_width


def test_natural_training_is_told_from_robust_methods_at_three_seeds():
    """Robust methods of nearly the same accuracy are not told from each other."""
    random = np.random.default_rng(0)
    runs = {}
    for k, method in enumerate(["natural", "sat", "trades", "ard", "rslad"]):
        for seed in range(3):
            rate = 0.0 if method == "natural" else 0.5 + 0.01 * k + 0.03 * random.normal()
            runs["none", "small", method, seed, "best"] = random.random(300) < rate
    table = compared(runs, ["natural", "sat", "trades", "ard", "rslad"])
    robust = table[table["metric"].eq("pgd20")]
    assert (robust.loc[robust["other"].eq("natural"), "ci_low"] > 20).all()
    assert (robust.loc[robust["other"].ne("natural"), "p_adjusted"] > 0.05).all()


def test_no_torch_is_imported():
    code = (
        "import sys; from robust_distillation.reporting import claims, comparisons; "
        "from robust_distillation.statistics import comparing, intervals, verdicts; print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_tables_of_the_tiny_experiment(finished):
    folder = finished / "results/tiny/tables"
    comparing = pd.read_csv(folder / "comparisons.csv")
    assert len(comparing) == 2 * 2 * 3  # methods but the reference, checkpoints, metrics
    assert set(comparing["comparisons"]) == {2}
    assert set(comparing["other"]) == {"natural"}  # the one without a teacher
    curve = read_json_lines(finished / "results/tiny/students/none/small/natural/seed-0/metrics.jsonl")
    best = 100 * max(line["selection_robust"] for line in curve)
    assert comparing["reference_score"].tolist() == pytest.approx([best] * 12, abs=1e-3)
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
