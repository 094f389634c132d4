"""Simulates how often confidence intervals of the mean cover the truth: the method in use against three others.

Outcomes are drawn from a probit model, whose true mean is known: image i is correct for seed s of method m if

    mu + u_ms + d_i + b_mi + e_msi > 0,    u ~ N(0, seed), d ~ N(0, 1.5), b ~ N(0, 0.7), e ~ N(0, 1)

Methods share the difficulty d of the images, but not b. The true accuracy is Phi(mu / sd), 50 % for mu = 0. The true
difference of two methods with the same mu is 0.

A second table is about metrics that are no means over images. There the model has ten classes: u is the sum of an
effect of the seed and one of seed and class, and mu differs between the classes. A network predicts with the confidence
Phi(latent + shift), where latent is the left side without e: it is calibrated for a shift of 0. The true value is that
on infinitely many images, averaged over infinitely many seeds.

A third table is about families: all pairs of several methods at one time, with what they share of the variance over
seeds. Methods have effects of seeds that vary alike or not, and true accuracies of a half, from 5 to 95 %, or near 0 or
100 %. A cell fails if the 99 % interval of its coverage lies below 94 %.

Example: python benchmarks/coverage.py
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy import stats
from tabulate import tabulate

from robust_distillation import metrics
from robust_distillation.metrics.contract import Predictions
from robust_distillation.statistics.estimates import POWER
from robust_distillation.statistics.intervals import ALPHA, MeanSquares, half_width, mean_squares
from robust_distillation.statistics.measuring import RESAMPLES as SETS
from robust_distillation.statistics.measuring import Measured
from robust_distillation.statistics.sharing import FEWEST, shared_variances, variance_of_difference

DIFFICULTY, METHOD_DIFFICULTY = 1.5, 0.7  # standard deviations of d and b
REGIMES = {"images": 0.02, "between": 0.15, "seeds": 0.5}  # dominant source of variance: standard deviation of u
SEEDS = (3, 5, 10)
IMAGES = 300
FAMILY = 28  # comparisons of eight methods
BATCH = 250  # replications that are simulated at once
RESAMPLES = 500  # of a bootstrap
METHODS = ("components", "t over seeds", "bootstrap over seeds", "hierarchical bootstrap")
CLASSES, CLASS_IMAGES = 10, 100  # of the second table
CASES = {  # row of the second table: metric, standard deviation of mu over the classes, shift of the confidence
    "worst class": ("worst_class.clean", 0.7, 0.0),
    "worst class, classes alike": ("worst_class.clean", 0.0, 0.0),
    "NSD": ("nsd.clean", 0.7, 0.0),
    "ECE": ("ece.clean", 0.7, 0.5),
    "ECE, almost calibrated": ("ece.clean", 0.7, 0.1),
}
RESAMPLED = ("percentile", "basic", "BCa", "normal", "components", "components and bias")
FOLDS = 20  # of the jackknife for BCa
FAMILIES = (2, 3, 4, 8, 16, 30)  # numbers of methods of the third table
SPREADS = {  # standard deviations of u, repeated for all methods
    "equal, images dominate": (0.02,),
    "equal": (0.1,),
    "equal, seeds dominate": (0.5,),
    "unequal": (0.02, 0.05, 0.1, 0.2),
    "one method apart": (0.5, *[0.02] * 29),
    "two kinds": (0.02, 0.5),
}
RATES = {  # true accuracies, from the first method to the last
    "half": (0.5, 0.5),
    "5 to 95 %": (0.05, 0.95),
    "near 0": (0.03, 0.03),
    "near 100 %": (0.97, 0.97),
}
LEAST_COVERAGE = 0.94


def draw_outcomes(
    random: np.random.Generator, count: int, seeds: int, images: int, seed_sd: float, paired: bool
) -> tuple[np.ndarray, float]:
    """Draws outcomes from the probit model with mu = 0.

    Args:
        random: the random number generator.
        count: number of replications.
        seeds: number of seeds.
        images: number of images.
        seed_sd: standard deviation of the effect of a seed.
        paired: true for differences of two methods' outcomes, false for outcomes of one method.

    Returns:
        Outcomes [count, seeds, images], 0 and 1 or -1, 0 and 1, and their true mean.
    """
    difficulty = DIFFICULTY * random.standard_normal((count, 1, images), dtype=np.float32)

    def method() -> np.ndarray:
        latent = random.standard_normal((count, seeds, images), dtype=np.float32)
        latent += difficulty + METHOD_DIFFICULTY * random.standard_normal((count, 1, images), dtype=np.float32)
        latent += seed_sd * random.standard_normal((count, seeds, 1), dtype=np.float32)
        return (latent > 0).astype(np.float32)

    return (method() - method(), 0.0) if paired else (method(), 0.5)


def t_over_seeds(squares: MeanSquares, alpha: float) -> np.ndarray:
    """Computes the half widths of Student's t intervals over the means of the seeds, at the level 1 - alpha."""
    error = np.sqrt(squares.of_seeds / (squares.seeds * squares.images))
    return stats.t.ppf(1 - alpha / 2, squares.seeds - 1) * error


def bootstrap(random: np.random.Generator, outcomes: np.ndarray, alpha: float, images: bool) -> np.ndarray:
    """Computes percentile bootstrap intervals of the mean.

    Args:
        random: the random number generator.
        outcomes: [count, seeds, images].
        alpha: 1 - confidence level.
        images: true to resample seeds and images, false to resample seeds only.

    Returns:
        Lower and upper ends, [2, count].
    """
    count, seeds, n_images = outcomes.shape
    seed_weights = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=(count, RESAMPLES)) / seeds
    if images:
        means = np.empty((count, RESAMPLES))
        for number in range(count):
            weights = random.multinomial(n_images, np.full(n_images, 1 / n_images), size=RESAMPLES) / n_images
            means[number] = ((seed_weights[number] @ outcomes[number]) * weights).sum(1)
    else:
        means = (seed_weights @ outcomes.mean(2, dtype=float)[..., None])[..., 0]
    return np.quantile(means, [alpha / 2, 1 - alpha / 2], axis=1)


def coverage(
    seeds: int, seed_sd: float, paired: bool, alpha: float, replications: int, resampled: int, images: int = IMAGES
) -> dict[str, float]:
    """Simulates the coverage of each method's intervals at the level 1 - alpha.

    Args:
        seeds: number of seeds.
        seed_sd: standard deviation of the effect of a seed.
        paired: true for differences of two methods, false for accuracies of one.
        alpha: 1 - confidence level.
        replications: number of replications.
        resampled: number of replications in which the bootstraps are computed as well; 0 for none.
        images: number of images.

    Returns:
        Method to the fraction of its intervals that contain the true mean.
    """
    random = np.random.default_rng(0)
    hits: dict[str, list[np.ndarray]] = {}
    for start in range(0, replications, BATCH):
        outcomes, truth = draw_outcomes(random, min(BATCH, replications - start), seeds, images, seed_sd, paired)
        squares = mean_squares(outcomes)
        halves = {"components": half_width(squares, alpha), "t over seeds": t_over_seeds(squares, alpha)}
        for name, half in halves.items():
            hits.setdefault(name, []).append(np.abs(squares.mean - truth) <= half)
        if start < resampled:
            for name, both in (("bootstrap over seeds", False), ("hierarchical bootstrap", True)):
                low, high = bootstrap(random, outcomes[: resampled - start], alpha, both)
                hits.setdefault(name, []).append((low <= truth) & (truth <= high))
    return {name: float(np.concatenate(parts).mean()) for name, parts in hits.items()}


def rows(replications: int, resampled: int) -> Iterator[list[str]]:
    """Yields the rows of the table: one per level, quantity, regime and number of seeds. Arguments as of `coverage`."""
    for alpha in (ALPHA, ALPHA / FAMILY):
        digits = 1 if alpha == ALPHA else 2
        for paired in (False, True):
            for regime, seed_sd in REGIMES.items():
                for seeds in SEEDS:
                    shares = coverage(seeds, seed_sd, paired, alpha, replications, resampled if alpha == ALPHA else 0)
                    cells = [f"{100 * shares[name]:.{digits}f}" if name in shares else "" for name in METHODS]
                    of = "difference" if paired else "accuracy"
                    yield [f"{100 * (1 - alpha):.{digits}f}", of, regime, str(seeds), *cells]


def draw_predictions(
    random: np.random.Generator, methods: int, seeds: int, images: int, seed_sd: float, class_sd: float, shift: float
) -> list[Predictions]:
    """Draws the predictions of methods from the model with classes.

    Args:
        random: the random number generator.
        methods: number of methods.
        seeds: number of seeds of each.
        images: number of images, those of each class alike.
        seed_sd: standard deviation of the effects of the seed, and of seed and class.
        class_sd: standard deviation of mu over the classes.
        shift: the confidence is too high by as much.

    Returns:
        The predictions of each method, on the same images.
    """
    labels = np.arange(images) % CLASSES
    difficulty = DIFFICULTY * random.standard_normal(images)
    found = []
    for _ in range(methods):
        latent = class_means(class_sd)[labels] + difficulty + METHOD_DIFFICULTY * random.standard_normal(images)
        of_class = random.standard_normal((seeds, CLASSES))
        latent = latent + seed_sd * (random.standard_normal((seeds, 1)) + of_class[:, labels])
        correct = latent + random.standard_normal((seeds, images)) > 0
        predicted = np.where(correct, labels, (labels + 1) % CLASSES)
        found.append(Predictions(labels, correct, correct, predicted, stats.norm.cdf(latent + shift)))
    return found


def class_means(class_sd: float) -> np.ndarray:
    """Returns mu of each class, [10]: quantiles of a normal distribution. class_sd: its standard deviation."""
    return class_sd * stats.norm.ppf((np.arange(CLASSES) + 0.5) / CLASSES)


def true_value(metric: str, seed_sd: float, class_sd: float, shift: float) -> float:
    """Computes the true value of a metric in the model with classes, from very many seeds and images.

    Args:
        metric: name of the metric.
        seed_sd: standard deviation of the effects of the seed, and of seed and class.
        class_sd: standard deviation of mu over the classes.
        shift: the confidence is too high by as much.
    """
    random = np.random.default_rng(1)
    if metric.startswith("ece"):
        sets = (draw_predictions(random, 1, 1, 200_000, seed_sd, class_sd, shift)[0] for _ in range(40))
        return float(np.mean([metrics.get(metric).measure(one) for one in sets]))
    sd = np.sqrt(1 + DIFFICULTY**2 + METHOD_DIFFICULTY**2)
    effects = seed_sd * (random.standard_normal((300_000, 1)) + random.standard_normal((300_000, CLASSES)))
    accuracies = stats.norm.cdf((class_means(class_sd) + effects) / sd)
    own = accuracies.min(1) if metric.startswith("worst") else accuracies.std(1) / accuracies.mean(1)
    return float(own.mean())


def resampled_coverage(
    case: str, seeds: int, seed_sd: float, paired: bool, replications: int, alpha: float = ALPHA
) -> dict[str, float]:
    """Simulates the coverage of intervals of a metric that is no mean over images.

    Args:
        case: key of CASES.
        seeds: number of seeds.
        seed_sd: standard deviation of the effects of the seed, and of seed and class.
        paired: true for differences of two methods, false for values of one.
        replications: number of replications.
        alpha: 1 - confidence level.

    Returns:
        Method to the fraction of its intervals that contain the true value.
    """
    name, class_sd, shift = CASES[case]
    metric, images = metrics.get(name), CLASSES * CLASS_IMAGES
    truth = 0.0 if paired else true_value(name, seed_sd, class_sd, shift)
    random = np.random.default_rng(0)
    folds = np.arange(images) // CLASSES % FOLDS != np.arange(FOLDS)[:, None]
    rows = list(range(seeds))
    hits: dict[str, list[bool]] = {key: [] for key in RESAMPLED}
    for _ in range(replications):
        sampled = draw_predictions(random, 1 + paired, seeds, images, seed_sd, class_sd, shift)
        found, left_out = Measured.of(metric, sampled[0]), metric.measure(sampled[0], folds.astype(float)).mean(1)
        if paired:
            found = found.minus(Measured.of(metric, sampled[1]), rows, rows)
            left_out = left_out - metric.measure(sampled[1], folds.astype(float)).mean(1)
        for key, (low, high) in _intervals(random, found, left_out, alpha).items():
            hits[key].append(bool(low <= truth <= high))
    return {key: float(np.mean(found)) for key, found in hits.items()}


def _intervals(
    random: np.random.Generator, found: Measured, left_out: np.ndarray, alpha: float
) -> dict[str, tuple[float, float]]:
    """Returns the interval of each method. left_out: the values without each of the folds of images."""
    seeds, mean = len(found.values), found.values.mean()
    both = (found.resampled * random.multinomial(seeds, np.full(seeds, 1 / seeds), SETS) / seeds).sum(1)
    ends = np.array([alpha / 2, 1 - alpha / 2])
    low, high = np.quantile(both, ends)
    # BCa (Efron 1987): bias from the share below the value, acceleration from the jackknife
    below = np.clip((both < mean).mean() + (both == mean).mean() / 2, 1 / SETS, 1 - 1 / SETS)
    apart = left_out.mean() - left_out
    scale = 6 * (apart**2).sum() ** 1.5
    shifted = stats.norm.ppf(below) + stats.norm.ppf(ends)
    acceleration = (apart**3).sum() / scale if scale > 0 else 0.0
    moved = stats.norm.cdf(stats.norm.ppf(below) + shifted / (1 - acceleration * shifted))
    normal, half, bias = (
        -stats.norm.ppf(alpha / 2) * both.std(ddof=1),
        float(half_width(found.squares(), alpha)),
        found.bias(),
    )
    return {
        "percentile": (low, high),
        "basic": (2 * mean - high, 2 * mean - low),
        "BCa": tuple(np.quantile(both, moved)),
        "normal": (mean - normal, mean + normal),
        "components": (mean - half, mean + half),
        "components and bias": (mean - half - max(bias, 0), mean + half - min(bias, 0)),
    }


def resampled_rows(replications: int) -> Iterator[list[str]]:
    """Yields the rows of the second table: one per case, quantity, regime and number of seeds.

    Args:
        replications: number of replications of each row.
    """
    for case in CASES:
        for paired in (False, True):
            for regime, seed_sd in REGIMES.items():
                for seeds in SEEDS[:2]:
                    shares = resampled_coverage(case, seeds, seed_sd, paired, replications)
                    of = "difference" if paired else "value"
                    yield [case, of, regime, str(seeds), *(f"{100 * shares[name]:.1f}" for name in RESAMPLED)]


class Family(NamedTuple):
    """Coverage and width of the intervals of all pairs of a family of methods, by simulation.

    Attributes:
        coverage: share of the replications in which all intervals hold their true difference.
        upper: upper end of the 99 % interval of `coverage`.
        width: median half width of an interval, a fraction of the images.
        power: median of the smallest difference that is told from 0 with a probability of 80 %.
        own_coverage: as `coverage`, if each pair had the variance over seeds of its own differences alone.
        own_width: as `width`, of these intervals.
    """

    coverage: float
    upper: float
    width: float
    power: float
    own_coverage: float
    own_width: float


def draw_family(
    random: np.random.Generator, count: int, seeds: int, seed_sds: np.ndarray, rates: np.ndarray, images: int
) -> np.ndarray:
    """Draws outcomes of several methods from the probit model, bool [count, methods, seeds, images].

    Args:
        random: the random number generator.
        count: number of replications.
        seeds: number of seeds.
        seed_sds: standard deviation of the effect of a seed for each method.
        rates: true accuracy of each method.
        images: number of images.
    """
    difficulty = DIFFICULTY * random.standard_normal((count, 1, images), dtype=np.float32)
    mu = stats.norm.ppf(rates) * np.sqrt(1 + DIFFICULTY**2 + METHOD_DIFFICULTY**2 + seed_sds**2)
    found = np.empty((count, len(rates), seeds, images), dtype=bool)
    for method, (mean, seed_sd) in enumerate(zip(mu.astype(np.float32), seed_sds.astype(np.float32), strict=True)):
        latent = random.standard_normal((count, seeds, images), dtype=np.float32)
        latent += difficulty + METHOD_DIFFICULTY * random.standard_normal((count, 1, images), dtype=np.float32)
        latent += mean + seed_sd * random.standard_normal((count, seeds, 1), dtype=np.float32)
        found[:, method] = latent > 0
    return found


def squares_of_pairs(outcomes: np.ndarray, first: np.ndarray, second: np.ndarray) -> MeanSquares:
    """Computes the mean squares of the differences of pairs of methods, [count, pairs], as `mean_squares` does.

    Args:
        outcomes: [count, methods, seeds, images].
        first: positions of the first methods of the pairs.
        second: positions of the second methods.
    """
    count, methods, seeds, images = outcomes.shape
    x = outcomes.astype(np.float32)
    by_seed, by_image = x.mean(3, dtype=float), x.mean(2, dtype=float)

    def squared(values: np.ndarray) -> np.ndarray:
        """Sums of squares of the differences of rows, for all pairs."""
        products = values @ values.swapaxes(1, 2)
        own = np.diagonal(products, axis1=1, axis2=2)
        return own[:, first] + own[:, second] - 2 * products[:, first, second]

    whole = squared(x.reshape(count, methods, -1)).astype(float)
    mean = by_seed.mean(2)[:, first] - by_seed.mean(2)[:, second]
    of_seeds = images * np.maximum(squared(by_seed - by_seed.mean(2, keepdims=True)), 0)
    of_images = seeds * np.maximum(squared(by_image - by_image.mean(2, keepdims=True)), 0)
    rest = np.maximum(whole - seeds * images * mean**2 - of_seeds - of_images, 0)
    free = (seeds - 1) * (images - 1)
    return MeanSquares(seeds, images, mean, of_seeds / (seeds - 1), of_images / (images - 1), rest / free)


def family(
    spread: tuple[float, ...], rates: str, seeds: int, methods: int, replications: int, images: int = IMAGES
) -> Family:
    """Simulates the intervals of all pairs of a family of methods.

    Args:
        spread: standard deviations of the effect of a seed, repeated for all methods.
        rates: key of RATES.
        seeds: number of seeds.
        methods: number of methods.
        replications: number of replications.
        images: number of images.
    """
    random = np.random.default_rng(0)
    seed_sds, true = np.resize(spread, methods), np.linspace(*RATES[rates], methods)
    first, second = np.triu_indices(methods, 1)
    alpha, truth = ALPHA / len(first), true[first] - true[second]
    batch = max(1, min(BATCH, 12_000_000 // (methods * seeds * images)))
    hits, own_hits, widths, own_widths, powers = [], [], [], [], []
    for start in range(0, replications, batch):
        outcomes = draw_family(random, min(batch, replications - start), seeds, seed_sds, true, images)
        squares = squares_of_pairs(outcomes, first, second)
        variances, degrees = shared_variances(outcomes.mean(3).var(2, ddof=1), seeds - 1)
        pairs = (np.stack([values[:, first], values[:, second]], -1) for values in (variances, degrees))
        of_seeds, least = variance_of_difference(*pairs, seeds)
        shared = squares._replace(of_seeds=images * of_seeds, degrees=least)
        own, half = half_width(squares, alpha), half_width(shared, alpha)
        half = half if methods >= FEWEST else np.maximum(half, own)
        error = half_width(shared, 2 * (1 - POWER))
        hits.append((np.abs(squares.mean - truth) <= half).all(1))
        own_hits.append((np.abs(squares.mean - truth) <= own).all(1))
        widths.append(np.median(half, 1))
        own_widths.append(np.median(own, 1))
        powers.append(np.median(half + error, 1))
    share = float(np.concatenate(hits).mean())
    upper = float(stats.binomtest(round(share * replications), replications).proportion_ci(0.99, "wilson").high)
    medians = (float(np.median(np.concatenate(values))) for values in (widths, powers, own_widths))
    width, power, own_width = medians
    return Family(share, upper, width, power, float(np.concatenate(own_hits).mean()), own_width)


def family_rows(replications: int) -> Iterator[list[str]]:
    """Yields the rows of the third table: one per spread, number of methods and number of seeds.

    The coverage stands for each of RATES; the widths are those at accuracies of a half.

    Args:
        replications: number of replications of each cell.
    """
    cells = list(product(SPREADS, FAMILIES, SEEDS))
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as processes:
        made = processes.map(_family, *zip(*product(cells, RATES, [replications]), strict=True))
        for (spread, methods, seeds), found in zip(cells, zip(*[made] * len(RATES), strict=True), strict=True):
            shares = [f"{100 * one.coverage:.1f}{'' if one.upper >= LEAST_COVERAGE else ' fails'}" for one in found]
            widths = [f"{100 * min(width, 1):.1f}" for width in (found[0].width, found[0].own_width, found[0].power)]
            yield [spread, str(methods), str(seeds), *shares, *widths]


def _family(cell: tuple[str, int, int], rates: str, replications: int) -> Family:
    spread, methods, seeds = cell
    return family(SPREADS[spread], rates, seeds, methods, replications)


def main(show: Callable[[str], None] = print) -> None:
    """Simulates and prints the tables of coverage, by `show`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replications", type=int, default=4000, help="of components and t")
    parser.add_argument("--resampled", type=int, default=500, help="of the bootstraps, with 500 resamples each")
    parser.add_argument("--measured", type=int, default=300, help="replications of the second table")
    parser.add_argument("--families", type=int, default=4000, help="replications of each row of the third table")
    options = parser.parse_args()
    head = ["level", "of", "dominated by", "seeds", *METHODS]
    show(tabulate(rows(options.replications, options.resampled), head, "pipe", disable_numparse=True))
    head = ["metric", "of", "dominated by", "seeds", *RESAMPLED]
    show("\n" + tabulate(resampled_rows(options.measured), head, "pipe", disable_numparse=True))
    head = ["seeds vary", "methods", "seeds", *RATES, "half width", "without sharing", "decided with 80 %"]
    show("\n" + tabulate(family_rows(options.families), head, "pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
