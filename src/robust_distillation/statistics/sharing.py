"""Shares what is known of the variance over seeds among the methods of an experiment.

Three seeds tell little of their own variance. The methods of one experiment are trained and tested alike, so their
variances are taken as draws from one distribution, which is estimated from all of them: the empirical Bayes estimate of
Smyth, Statistical Applications in Genetics and Molecular Biology 3 (2004), article 3, as in the software limma. Each
method's variance moves towards it, and gains degrees of freedom. Here it never falls below the method's own.
docs/statistics.md shows by simulation how often the intervals cover.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma, polygamma

from robust_distillation.statistics.intervals import MeanSquares

LEAST = 1e-12  # a smaller variance is none
FEWEST = 4  # methods whose shared variance may shorten an interval; with fewer it may only lengthen it
STEPS = 20  # of Newton's method, which converges quadratically


def shared_variances(variances: ArrayLike, degrees: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Estimates the variance over seeds of each method from those of all methods.

    The logarithms of the methods' variances vary more than those of samples from one variance; the excess gives the
    degrees of freedom d0 of the common (prior) variance s0^2. A method with variance s^2 and d degrees of freedom gets
    the larger of s^2 and (d0 s0^2 + d s^2) / (d0 + d), with d0 + d degrees of freedom, but at most with those of all
    methods together. Without an excess d0 is infinite, and s0^2 is the mean of the methods' variances.

    Args:
        variances: sample variances over the seeds of M methods, [..., M]. A method whose seeds do not differ (variance
            0) neither gives nor takes.
        degrees: degrees of freedom of each variance: number of seeds less 1. Of the shape [M], or a number.

    Returns:
        The variances and their degrees of freedom, [..., M]. They are those of the arguments for a method whose seeds
        do not differ, for a method with one seed (0 degrees of freedom), and if fewer than two other methods remain.
    """
    own = np.asarray(variances, dtype=float)
    degrees = np.broadcast_to(np.asarray(degrees, dtype=float), own.shape)
    known = (own > LEAST) & (degrees > 0)
    half = np.where(known, degrees, 2) / 2
    count, together = known.sum(-1, keepdims=True), np.where(known, degrees, 0).sum(-1, keepdims=True)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.where(known, values, 0).sum(-1, keepdims=True) / np.maximum(count, 1)

    logarithms = np.log(np.where(known, own, 1)) - digamma(half) + np.log(half)
    center = mean(logarithms)
    sampled = mean(polygamma(1, half))
    excess = mean((logarithms - center) ** 2) * count / np.maximum(count - 1, 1) - sampled
    differ = excess > 0
    prior_half = np.where(differ, _inverse_trigamma(np.where(differ, excess, 1)), 1)
    prior, prior_degrees = np.exp(center + digamma(prior_half) - np.log(prior_half)), 2 * prior_half
    pooled = mean(degrees * own) * count / np.maximum(together, 1)
    moved = np.where(differ, (prior_degrees * prior + degrees * own) / (prior_degrees + degrees), pooled)
    of_shared = np.minimum(np.where(differ, prior_degrees + degrees, np.inf), together)
    takes = known & (count > 1)
    return np.where(takes, np.maximum(moved, own), own), np.where(takes, of_shared, degrees)


def _inverse_trigamma(values: np.ndarray) -> np.ndarray:
    """Solves trigamma(x) = value for x by Newton's method, as in the appendix of Smyth (2004)."""
    x = 0.5 + 1 / values
    for _ in range(STEPS):
        at = polygamma(1, x)
        x = x + at * (1 - at / values) / polygamma(2, x)
    return x


def variance_of_difference(variances: ArrayLike, degrees: ArrayLike, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Computes the variance over seeds of the difference of two methods.

    The seeds of two methods are taken as independent: the variance is the sum of both. Its degrees of freedom are the
    smaller ones of the methods whose seeds differ, but at least S - 1.

    Args:
        variances: variances over the seeds of the two methods, [..., 2], as `shared_variances` returns them.
        degrees: their degrees of freedom, [..., 2].
        seeds: number S of seeds of the difference.

    Returns:
        The variance of the difference and its degrees of freedom, [...].
    """
    variances = np.asarray(variances, dtype=float)
    least = np.where(variances > LEAST, degrees, np.inf).min(-1)
    return variances.sum(-1), np.maximum(np.where(np.isinf(least), 0, least), seeds - 1)


class SharedSeeds(NamedTuple):
    """Variances over seeds that the methods of one comparison share, in one metric at one checkpoint.

    `SharedSeeds.of` makes these objects, and `of_difference` gives the mean squares for the interval of the difference
    of two methods.

    Attributes:
        variances: method to the variance over seeds of its value, in the squared unit of the metric.
        degrees: method to the degrees of freedom of this variance.
        methods: number of methods whose seeds differ.
    """

    variances: Mapping[str, float]
    degrees: Mapping[str, float]
    methods: int

    @classmethod
    def of(cls, values: Mapping[str, np.ndarray]) -> SharedSeeds:
        """Shares the variances over seeds.

        Args:
            values: method to its values in the metric, one per seed.
        """
        own = np.array([np.var(of_seeds, ddof=1) if len(of_seeds) > 1 else 0.0 for of_seeds in values.values()])
        degrees = np.array([len(of_seeds) - 1.0 for of_seeds in values.values()])
        variances, shared = shared_variances(own, degrees)
        return cls(
            dict(zip(values, variances.tolist(), strict=True)), dict(zip(values, shared.tolist(), strict=True)),
            int(((own > LEAST) & (degrees > 0)).sum()),
        )  # fmt: skip

    def of_difference(self, squares: MeanSquares, method: str, other: str) -> list[MeanSquares]:
        """Returns the mean squares for the interval of the difference of two methods; the longest interval counts.

        Args:
            squares: mean squares of the difference over seeds, images and their interaction.
            method: name of the one method.
            other: name of the other method.

        Returns:
            `squares` with the shared variance over seeds. With fewer than four methods (FEWEST) also `squares` as they
            are, and these alone with one seed or if neither method's seeds differ.
        """
        both = [self.variances[name] for name in (method, other)]
        if squares.seeds < 2 or max(both) <= LEAST:
            return [squares]
        own = [self.degrees[name] for name in (method, other)]
        variance, degrees = variance_of_difference(both, own, squares.seeds)
        shared = squares._replace(of_seeds=squares.images * variance, degrees=degrees)
        return [shared] if self.methods >= FEWEST else [squares, shared]
