"""Judges claims: is a difference above a threshold, below it, or undecided, and how many seeds would decide it?"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

from robust_distillation.statistics.intervals import MeanSquares, components, expected_mean_squares, half_width

SUPPORTED, REFUTED, INCONCLUSIVE = "supported", "refuted", "inconclusive"
MOST_SEEDS = 1000  # the largest number of seeds that is ever recommended


class Estimate(NamedTuple):
    """Mean difference of two distillation methods with the confidence interval at one level, and predicted intervals.

    `statistics.verdicts.estimate_from_squares` and `estimate_from_values` make these objects. The interval is mean +-
    half length. All half lengths are in the unit of `mean`.

    A claim, a sentence of the experiment file such as `rslad > ard on autoattack`, is judged by such an estimate.

    Attributes:
        mean: mean difference, method minus other.
        seeds: number of seeds that both methods have.
        half_width: half the length of the interval of `mean`; NaN if it cannot be estimated, from one seed.
        expected_half_width: function of an int array of numbers of seeds. It returns the half lengths that are expected
            with so many seeds, as an array of the same shape.
        limit_half_width: function of a number of images. It returns the half length that is expected with infinitely
            many seeds on so many images. None as the argument means as many images as were measured.
    """

    mean: float
    seeds: int
    half_width: float
    expected_half_width: Callable[[np.ndarray], np.ndarray]
    limit_half_width: Callable[[int | None], float]


def estimate_from_squares(squares: MeanSquares, alpha: float, images: int | None = None) -> Estimate:
    """Estimates the mean difference of two distillation methods in a metric that is measured on images, such as
    accuracy.

    The interval accounts for other seeds and other images; with one seed, for other images only. Its half length is
    `statistics.intervals.half_width`: the longest of the intervals by Student's t over the seeds, by Student's t with
    the variance components of seeds and images (Satterthwaite's degrees of freedom), and by the exact binomial bound.

    Args:
        squares: mean squares of the differences (one method minus the other) over seeds (`of_seeds`), images
            (`of_images`) and their interaction (`rest`) of a seeds x images table, a `MeanSquares` as
            `statistics.intervals.mean_squares` or `Measured.squares` returns it.
        alpha: 1 - confidence level of the interval, in (0, 1).
        images: number of test images that were measured, if `squares` are those of fewer images (the field `support` of
            a `Measured`). The function `limit_half_width` of the result counts images in this number. None:
            `squares.images`.

    Returns:
        An `Estimate`: `mean` (the mean difference), `seeds`, `half_width` (half the length of the interval), and the
        functions `expected_half_width` and `limit_half_width`, which predict the half length for more seeds or images.
        Mean and half lengths are in the unit of the differences (for a percentage, 0.01 is one percentage point).
    """
    _, of_images = components(squares)
    share = squares.images / (images or squares.images)

    def limit_half_width(images: int | None) -> float:
        images = squares.images if images is None else images * share
        binomial = 1 - (alpha / 2) ** (1 / images)  # see intervals.half_width
        return max(float(stats.t.ppf(1 - alpha / 2, max(1, images - 1)) * math.sqrt(of_images / images)), binomial)

    def expected_half_width(seeds: np.ndarray) -> np.ndarray:
        return half_width(expected_mean_squares(squares, np.asarray(seeds)), alpha)

    return Estimate(
        float(squares.mean), squares.seeds, float(half_width(squares, alpha)), expected_half_width, limit_half_width
    )


def estimate_from_values(differences: np.ndarray, alpha: float) -> Estimate:
    """Estimates the mean difference of two distillation methods in a metric that is one number per seed, over S seeds.

    The interval is the paired t interval over the seeds, with S - 1 degrees of freedom.

    Args:
        differences: [S] for S seeds: value of the method minus that of the other method with the same seed.
        alpha: 1 - confidence level of the interval, in (0, 1).

    Returns:
        An `Estimate`: `mean` (the mean difference), `seeds`, `half_width` (half the length of the interval), and two
        functions, in the unit of the values. `half_width` is NaN for one seed. `expected_half_width` predicts the half
        length for more seeds. `limit_half_width` returns 0 for any number of images, since Student's t over infinitely
        many seeds leaves no uncertainty.
    """
    seeds = len(differences)
    sd = float(np.std(differences, ddof=1)) if seeds > 1 else math.nan

    def expected_half_width(count: np.ndarray) -> np.ndarray:
        count = np.asarray(count)
        return stats.t.ppf(1 - alpha / 2, count - 1) * sd / np.sqrt(count)

    half = float(expected_half_width(np.array(seeds))) if seeds > 1 else math.nan
    return Estimate(float(np.mean(differences)), seeds, half, expected_half_width, lambda images: 0.0)


def verdict(estimate: Estimate, sign: str, threshold: float) -> str:
    """Judges the claim that a difference lies above or below a threshold, by the confidence interval of the difference.

    A claim is a sentence of the experiment file such as `rslad > ard on autoattack`.

    Args:
        estimate: the mean difference (`mean`) with half the length of its interval (`half_width`), as
            `estimate_from_squares` returns it.
        sign: `>` if the claim is difference > threshold, `<` if it is difference < threshold.
        threshold: the threshold, in the unit of the estimate.

    Returns:
        `supported` if the claim is true on the whole interval, `refuted` if it is false on the whole interval, else
        `inconclusive`. It is `inconclusive` also if the threshold is an end of the interval or if the half length is
        NaN.
    """
    above = estimate.mean - estimate.half_width > threshold
    below = estimate.mean + estimate.half_width < threshold
    if above or below:
        return SUPPORTED if above == (sign == ">") else REFUTED
    return INCONCLUSIVE


def seeds_needed(estimate: Estimate, threshold: float) -> int | str:
    """Computes how many seeds would decide an inconclusive claim that a difference lies above or below a threshold.

    A claim is a sentence of the experiment file such as `rslad > ard on autoattack`. The mean difference and the
    variance components of seeds and images are assumed to stay as they are.

    Args:
        estimate: the mean difference with its interval, from at least two seeds, as `estimate_from_squares` returns it.
        threshold: the threshold that the claim compares the difference with, in the unit of the estimate.

    Returns:
        The smallest number of seeds, above the present one and at least 2, for which the interval would not contain the
        threshold. If there is none up to 1000, a text: "no number: the estimate lies on the threshold", "more than
        1000", or "no number with these images; at least N images are needed".
    """
    distance = abs(estimate.mean - threshold)
    if distance == 0:
        return "no number: the estimate lies on the threshold"
    counts = np.arange(max(2, estimate.seeds + 1), MOST_SEEDS + 1)
    enough = counts[estimate.expected_half_width(counts) < distance]
    if len(enough):
        return int(enough[0])
    if estimate.limit_half_width(None) < distance:
        return f"more than {MOST_SEEDS}"
    return f"no number with these images; at least {_images_needed(estimate, distance)} images are needed"


def _images_needed(estimate: Estimate, distance: float) -> int:
    """Finds the smallest number of images with which enough seeds would decide."""
    low, high = 1, 2
    while estimate.limit_half_width(high) >= distance:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if estimate.limit_half_width(middle) >= distance else (low, middle)
    return high
