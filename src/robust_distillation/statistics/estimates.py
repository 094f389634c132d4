"""Estimates the difference of two methods: its mean, intervals at any level, p values, and what more seeds would give.

An interval of a family of m is that of the level 1 - 0.05 / m (Bonferroni). A p value is adjusted by Holm's method,
which decides at least as often. Where it decides although the interval holds the threshold, the interval ends at the
threshold: these are the confidence regions that go with Holm's tests (Strassburger and Bretz, Statistics in Medicine
27, 2008). So the threshold lies inside the interval if and only if the adjusted p value is 0.05 or more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from robust_distillation.statistics.intervals import (
    ALPHA,
    MeanSquares,
    components,
    expected_mean_squares,
    half_width,
    p_value,
)
from robust_distillation.statistics.measuring import Measured
from robust_distillation.statistics.sharing import SharedSeeds

POWER = 0.8  # probability with which a recommended number of seeds decides


class _Estimate:
    """Base class of the estimates: computes intervals and smallest differences from `mean` and half widths."""

    def interval(self, alpha: float, p_adjusted: float, threshold: float = 0.0) -> tuple[float, float]:
        """Computes the confidence interval of the mean difference.

        Args:
            alpha: 1 - confidence level of the interval, in (0, 1).
            p_adjusted: p value of the threshold, adjusted for the family. Below 0.05 the interval ends at the threshold
                if it would hold it.
            threshold: the value that a claim compares the difference with, in the unit of `mean`.

        Returns:
            Lower and upper end, in the unit of `mean`; NaN if there is no interval, from one seed.
        """
        half = self.half_width(alpha)
        low, high = self.mean - half, self.mean + half
        if p_adjusted < ALPHA and low <= threshold <= high:
            return (threshold, high) if self.mean > threshold else (low, threshold)
        return low, high

    def smallest_difference(self, seeds: np.ndarray, images: int | None, alpha: float) -> np.ndarray:
        """Computes the smallest true difference from a threshold that is decided with a probability of 80 %.

        The estimate lies nearer to the threshold than the true difference by more than the 80 % quantile of its error
        with a probability of 20 %. So the difference is half the length of the interval plus this quantile.

        Args:
            seeds: numbers of seeds, each at least 2, or one.
            images: number of test images. None: as many as were measured.
            alpha: 1 - confidence level of the interval, in (0, 1).

        Returns:
            The differences in the unit of `mean`, of the shape of `seeds`.
        """
        missed = 2 * (1 - POWER)  # the level of a two-sided interval whose half length is the 80 % quantile
        return self.expected_half_width(seeds, alpha, images) + self.expected_half_width(seeds, missed, images)


@dataclass(frozen=True)
class Estimate(_Estimate):
    """Mean difference of two methods in a metric that is measured on images, such as accuracy.

    Intervals and p values account for other seeds and other images; with one seed, for other images only.

    Attributes:
        mean: mean difference, method less other, in the unit of `Measured.values`: a fraction for a percentage.
        seeds: number of seeds that both methods have.
        images: number of test images.
        squares: mean squares of the difference. Of several the one with the longest interval counts.
    """

    mean: float
    seeds: int
    images: int
    squares: list[MeanSquares]

    @classmethod
    def of(cls, found: Measured, shared: SharedSeeds, method: str, other: str) -> Estimate:
        """Estimates a difference.

        Args:
            found: the differences between the two methods, as `statistics.comparing.paired` returns them.
            shared: the variances over seeds that all methods share.
            method: name of the first method.
            other: name of the method that is subtracted.
        """
        squares = found.squares()
        alternatives = shared.of_difference(squares, method, other)
        return cls(float(squares.mean), squares.seeds, found.images, alternatives)

    def half_width(self, alpha: float) -> float:
        """Returns half the length of the interval of the mean at the level 1 - `alpha`."""
        return max(float(half_width(squares, alpha)) for squares in self.squares)

    def p_value(self, threshold: float = 0.0) -> float:
        """Returns the two-sided p value of a true difference of `threshold`."""
        return max(float(p_value(squares, threshold)) for squares in self.squares)

    def expected_half_width(self, seeds: np.ndarray, alpha: float, images: int | None = None) -> np.ndarray:
        """Predicts half the length of the interval of the mean with other numbers of seeds and images.

        Args:
            seeds: numbers of seeds, or one.
            alpha: 1 - confidence level of the interval, in (0, 1).
            images: number of test images. None: as many as were measured.

        Returns:
            The half lengths, of the shape of `seeds`.
        """
        seeds, share = np.asarray(seeds), (images or self.images) / self.images
        expected = [expected_mean_squares(squares, seeds, squares.images * share) for squares in self.squares]
        return np.max([half_width(squares, alpha) for squares in expected], axis=0)

    def limit_half_width(self, images: int | None, alpha: float) -> float:
        """Predicts half the length of the interval with infinitely many seeds.

        Args:
            images: number of test images. None: as many as were measured.
            alpha: 1 - confidence level of the interval, in (0, 1).
        """
        squares = self.squares[0]
        _, of_images = components(squares)
        images = (images or self.images) * squares.images / self.images
        binomial = 1 - (alpha / 2) ** (1 / images)  # see intervals.half_width
        return max(float(stats.t.ppf(1 - alpha / 2, max(1, images - 1)) * math.sqrt(of_images / images)), binomial)


@dataclass(frozen=True)
class SeedEstimate(_Estimate):
    """Mean difference of two methods in a metric that is one number per seed, such as a distance of the structure
    analysis, by the paired t interval over the seeds.

    Attributes:
        differences: [S] for S seeds: value of the method less that of the other method with the same seed.
    """

    differences: np.ndarray

    @property
    def mean(self) -> float:
        """The mean difference."""
        return float(np.mean(self.differences))

    @property
    def seeds(self) -> int:
        """The number S of seeds."""
        return len(self.differences)

    @property
    def _sd(self) -> float:
        return float(np.std(self.differences, ddof=1)) if self.seeds > 1 else math.nan

    def half_width(self, alpha: float) -> float:
        """Returns half the length of the interval of the mean at the level 1 - `alpha`; NaN for one seed."""
        return float(self.expected_half_width(np.array(self.seeds), alpha)) if self.seeds > 1 else math.nan

    def p_value(self, threshold: float = 0.0) -> float:
        """Returns the two-sided p value of a true difference of `threshold`; NaN for one seed."""
        if self.seeds < 2:
            return math.nan
        distance, error = abs(self.mean - threshold), self._sd / math.sqrt(self.seeds)
        return float(2 * stats.t.sf(distance / error, self.seeds - 1)) if error else float(distance == 0)

    def expected_half_width(self, seeds: np.ndarray, alpha: float, images: int | None = None) -> np.ndarray:
        """Predicts half the length of the interval of the mean with other numbers of seeds.

        Args:
            seeds: numbers of seeds, or one.
            alpha: 1 - confidence level of the interval, in (0, 1).
            images: number of test images, which changes nothing.

        Returns:
            The half lengths, of the shape of `seeds`.
        """
        seeds = np.asarray(seeds)
        return stats.t.ppf(1 - alpha / 2, seeds - 1) * self._sd / np.sqrt(seeds)

    def limit_half_width(self, images: int | None, alpha: float) -> float:
        """Returns 0 for any `images` and `alpha`: with infinitely many seeds, Student's t leaves no uncertainty."""
        return 0.0
