"""How often intervals of the mean hold the truth, by simulation: the method in use against three others.

Outcomes are drawn from a probit model, whose true mean is known exactly: image i is right for seed s of method m where

    mu + u_ms + d_i + b_mi + e_msi > 0,    u ~ N(0, seed), d ~ N(0, 1.5), b ~ N(0, 0.7), e ~ N(0, 1)

Methods share the images' difficulty d, not b. A single accuracy has its truth at P = Phi(mu / sd), 50 % for mu = 0; the
paired difference of two methods with the same mu has its truth at 0.

Example: python benchmarks/coverage.py
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from scipy import stats
from tabulate import tabulate

from robust_distillation.statistics.intervals import ALPHA, MeanSquares, half_width, mean_squares

DIFFICULTY, OWN = 1.5, 0.7
REGIMES = {"images": 0.02, "between": 0.15, "seeds": 0.5}  # which dominate: sd of the seeds' effect
SEEDS = (3, 5, 10)
IMAGES = 300
FAMILY = 28  # comparisons of eight methods
BATCH = 250
RESAMPLES = 500
METHODS = ("components", "t over seeds", "bootstrap over seeds", "hierarchical bootstrap")


def draw_outcomes(
    random: np.random.Generator, count: int, seeds: int, images: int, seed_sd: float, paired: bool
) -> tuple[np.ndarray, float]:
    """Outcomes [count, seeds, images], 0/1 or differences of two, and their true mean."""
    difficulty = DIFFICULTY * random.standard_normal((count, 1, images), dtype=np.float32)

    def method() -> np.ndarray:
        latent = random.standard_normal((count, seeds, images), dtype=np.float32)
        latent += difficulty + OWN * random.standard_normal((count, 1, images), dtype=np.float32)
        latent += seed_sd * random.standard_normal((count, seeds, 1), dtype=np.float32)
        return (latent > 0).astype(np.float32)

    return (method() - method(), 0.0) if paired else (method(), 0.5)


def t_over_seeds(found: MeanSquares, alpha: float) -> np.ndarray:
    """Half width."""
    error = np.sqrt(found.of_seeds / (found.seeds * found.images))
    return stats.t.ppf(1 - alpha / 2, found.seeds - 1) * error


def bootstrap(random: np.random.Generator, outcomes: np.ndarray, alpha: float, images: bool) -> np.ndarray:
    """Ends [2, count] of percentile intervals: seeds drawn again with replacement, and with `images` these as well."""
    count, seeds, many = outcomes.shape
    chosen = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=(count, RESAMPLES)) / seeds
    if images:
        means = np.empty((count, RESAMPLES))
        for number in range(count):
            weights = random.multinomial(many, np.full(many, 1 / many), size=RESAMPLES) / many
            means[number] = ((chosen[number] @ outcomes[number]) * weights).sum(1)
    else:
        means = (chosen @ outcomes.mean(2, dtype=float)[..., None])[..., 0]
    return np.quantile(means, [alpha / 2, 1 - alpha / 2], axis=1)


def covered(
    seeds: int, seed_sd: float, paired: bool, alpha: float, replications: int, resampled: int, images: int = IMAGES
) -> dict[str, float]:
    """By method the share of intervals at level 1 - alpha that hold the truth; the bootstraps in the first `resampled`
    replications."""
    random = np.random.default_rng(0)
    hits: dict[str, list[np.ndarray]] = {}
    for start in range(0, replications, BATCH):
        outcomes, truth = draw_outcomes(random, min(BATCH, replications - start), seeds, images, seed_sd, paired)
        found = mean_squares(outcomes)
        halves = {"components": half_width(found, alpha), "t over seeds": t_over_seeds(found, alpha)}
        for name, half in halves.items():
            hits.setdefault(name, []).append(np.abs(found.mean - truth) <= half)
        if start < resampled:
            for name, both in (("bootstrap over seeds", False), ("hierarchical bootstrap", True)):
                low, high = bootstrap(random, outcomes[: resampled - start], alpha, both)
                hits.setdefault(name, []).append((low <= truth) & (truth <= high))
    return {name: float(np.concatenate(parts).mean()) for name, parts in hits.items()}


def rows(replications: int, resampled: int) -> Iterator[list[str]]:
    for alpha in (ALPHA, ALPHA / FAMILY):
        digits = 1 if alpha == ALPHA else 2
        for paired in (False, True):
            for regime, seed_sd in REGIMES.items():
                for seeds in SEEDS:
                    shares = covered(seeds, seed_sd, paired, alpha, replications, resampled if alpha == ALPHA else 0)
                    cells = [f"{100 * shares[name]:.{digits}f}" if name in shares else "" for name in METHODS]
                    of = "difference" if paired else "accuracy"
                    yield [f"{100 * (1 - alpha):.{digits}f}", of, regime, str(seeds), *cells]


def main(show: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replications", type=int, default=4000, help="of components and t")
    parser.add_argument("--resampled", type=int, default=500, help="of the bootstraps, with 500 resamples each")
    options = parser.parse_args()
    head = ["level", "of", "dominated by", "seeds", *METHODS]
    show(tabulate(rows(options.replications, options.resampled), head, "pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
