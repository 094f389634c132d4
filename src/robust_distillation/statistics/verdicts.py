"""Is a difference above a threshold, below it, or not known well enough; and what would decide it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

from robust_distillation.statistics.intervals import MeanSquares, components, half_width, mean_squares, planned

SUPPORTED, REFUTED, INCONCLUSIVE = "supported", "refuted", "inconclusive"
MOST_SEEDS = 1000  # that anyone would be told to train


class Estimate(NamedTuple):
    """A mean difference, and how well it is known at one level."""

    mean: float
    seeds: int
    half: float  # of its interval
    expected: Callable[[np.ndarray], np.ndarray]  # numbers of seeds to the half width expected with them
    at_best: Callable[[int | None], float]  # a number of images (None: as many as now) to that without end of seeds


def of_outcomes(differences: np.ndarray, alpha: float) -> Estimate:
    """differences [S,N] of 0/1 outcomes: a fraction."""
    found = mean_squares(differences)
    _, of_images = components(found)

    def at_best(images: int | None) -> float:
        images = images or found.images
        unseen = 1 - (alpha / 2) ** (1 / images)  # see intervals.half_width
        return max(float(stats.t.ppf(1 - alpha / 2, max(1, images - 1)) * math.sqrt(of_images / images)), unseen)

    return Estimate(
        float(found.mean), found.seeds, float(half_width(found, alpha)),
        lambda seeds: half_width(_planned(found, seeds), alpha), at_best,
    )  # fmt: skip


def _planned(found: MeanSquares, seeds: np.ndarray) -> MeanSquares:
    return planned(found, np.asarray(seeds))


def of_numbers(differences: np.ndarray, alpha: float) -> Estimate:
    """differences [S]: one number per seed, whatever the images; Student's t."""
    seeds = len(differences)
    sd = float(np.std(differences, ddof=1)) if seeds > 1 else math.nan

    def expected(count: np.ndarray) -> np.ndarray:
        count = np.asarray(count)
        return stats.t.ppf(1 - alpha / 2, count - 1) * sd / np.sqrt(count)

    half = float(expected(np.array(seeds))) if seeds > 1 else math.nan
    return Estimate(float(np.mean(differences)), seeds, half, expected, lambda images: 0.0)


def verdict(estimate: Estimate, sign: str, threshold: float) -> str:
    """Of `difference > threshold`, or with `<`: supported where the whole interval agrees, refuted where none of it
    does."""
    above, below = estimate.mean - estimate.half > threshold, estimate.mean + estimate.half < threshold
    if above or below:
        return SUPPORTED if above == (sign == ">") else REFUTED
    return INCONCLUSIVE


def seeds_needed(estimate: Estimate, threshold: float) -> int | str:
    """The fewest seeds, more than there are, with which the interval would leave the threshold out if the estimate and
    its variance components stayed as they are; or a sentence that says why no number of seeds would do."""
    distance = abs(estimate.mean - threshold)
    if distance == 0:
        return "no number: the estimate lies on the threshold"
    counts = np.arange(max(2, estimate.seeds + 1), MOST_SEEDS + 1)
    enough = counts[estimate.expected(counts) < distance]
    if len(enough):
        return int(enough[0])
    if estimate.at_best(None) < distance:
        return f"more than {MOST_SEEDS}"
    return f"no number with these images; at least {_images_needed(estimate, distance)} images are needed"


def _images_needed(estimate: Estimate, distance: float) -> int:
    """The fewest images with which many seeds would do."""
    low, high = 1, 2
    while estimate.at_best(high) >= distance:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if estimate.at_best(middle) >= distance else (low, middle)
    return high
