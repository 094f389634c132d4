"""Simulates how often confidence intervals of the mean cover the truth: the method in use against three others.

Outcomes are drawn from a probit model, whose true mean is known: image i is correct for seed s of method m if

    mu + u_ms + d_i + b_mi + e_msi > 0,    u ~ N(0, seed), d ~ N(0, 1.5), b ~ N(0, 0.7), e ~ N(0, 1)

Methods share the difficulty d of the images, but not b. The true accuracy is Phi(mu / sd), 50 % for mu = 0. The true
difference of two methods with the same mu is 0.

Example: python benchmarks/coverage.py
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from scipy import stats
from tabulate import tabulate

from robust_distillation.statistics.intervals import ALPHA, MeanSquares, half_width, mean_squares

DIFFICULTY, METHOD_DIFFICULTY = 1.5, 0.7  # standard deviations of d and b
REGIMES = {"images": 0.02, "between": 0.15, "seeds": 0.5}  # dominant source of variance: standard deviation of u
SEEDS = (3, 5, 10)
IMAGES = 300
FAMILY = 28  # comparisons of eight methods
BATCH = 250  # replications that are simulated at once
RESAMPLES = 500  # of a bootstrap
METHODS = ("components", "t over seeds", "bootstrap over seeds", "hierarchical bootstrap")


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


def main(show: Callable[[str], None] = print) -> None:
    """Simulates and prints the table of coverage, by `show`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replications", type=int, default=4000, help="of components and t")
    parser.add_argument("--resampled", type=int, default=500, help="of the bootstraps, with 500 resamples each")
    options = parser.parse_args()
    head = ["level", "of", "dominated by", "seeds", *METHODS]
    show(tabulate(rows(options.replications, options.resampled), head, "pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
