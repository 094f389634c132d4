"""Judges claims: is a difference above a threshold, below it, or undecided, and how many seeds would decide it?"""

from __future__ import annotations

import numpy as np

from robust_distillation.statistics.estimates import POWER, Estimate, SeedEstimate
from robust_distillation.statistics.intervals import ALPHA

SUPPORTED, REFUTED, INCONCLUSIVE = "supported", "refuted", "inconclusive"
MOST_SEEDS = 1000  # the largest number of seeds that is ever recommended


def verdict(estimate: Estimate | SeedEstimate, sign: str, threshold: float, p_adjusted: float) -> str:
    """Judges the claim that a difference lies above or below a threshold.

    A claim is a sentence of the experiment file such as `rslad > ard on autoattack`.

    Args:
        estimate: the mean difference.
        sign: `>` if the claim is difference > threshold, `<` if it is difference < threshold.
        threshold: the threshold, in the unit of the estimate.
        p_adjusted: p value of the threshold, adjusted for the number of claims. NaN if there is none, from one seed.

    Returns:
        `inconclusive` unless the p value is below 0.05. Else `supported` if the mean lies on the claimed side of the
        threshold, and `refuted` if not.
    """
    if not p_adjusted < ALPHA:
        return INCONCLUSIVE
    return SUPPORTED if (estimate.mean > threshold) == (sign == ">") else REFUTED


def seeds_needed(estimate: Estimate | SeedEstimate, threshold: float, alpha: float) -> int | str:
    """Computes how many seeds would decide an inconclusive claim with a probability of 80 %.

    A claim is a sentence of the experiment file such as `rslad > ard on autoattack`. The true difference is taken to be
    the estimated one, and the variance components of seeds and images to stay as they are: see
    `Estimate.smallest_difference`.

    Args:
        estimate: the mean difference, from at least two seeds.
        threshold: the threshold that the claim compares the difference with, in the unit of the estimate.
        alpha: 1 - confidence level of the interval, in (0, 1).

    Returns:
        The smallest number of seeds, above the present one and at least 2. If there is none up to 1000, a text: "no
        number: the estimate lies on the threshold", "more than 1000", or "no number with these images; at least N
        images are needed".
    """
    distance = abs(estimate.mean - threshold)

    def limit(images: int | None) -> float:
        missed = 2 * (1 - POWER)
        return estimate.limit_half_width(images, alpha) + estimate.limit_half_width(images, missed)

    if distance == 0:
        return "no number: the estimate lies on the threshold"
    counts = np.arange(max(2, estimate.seeds + 1), MOST_SEEDS + 1)
    enough = counts[estimate.smallest_difference(counts, None, alpha) < distance]
    if len(enough):
        return int(enough[0])
    if limit(None) < distance:
        return f"more than {MOST_SEEDS}"
    low, high = 1, 2
    while limit(high) >= distance:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if limit(middle) >= distance else (low, middle)
    return f"no number with these images; at least {high} images are needed"
