"""Measures metrics on outcomes, and how much they vary with the seeds and the images.

A metric that is a mean over images has a value for every image; `intervals` estimates its variation from these. Any
other metric is computed again on resampled images: the test images drawn with replacement, as many as there are. All
models are measured on the same resampled images, so that their differences are paired.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np

from robust_distillation.metrics.contract import Metric, Predictions
from robust_distillation.randomness import derived_seed
from robust_distillation.statistics.intervals import MeanSquares, mean_squares

RESAMPLES = 500


class Measured(NamedTuple):
    """Values of a metric for the S networks of a model, or differences between those of two models.

    All values are in the unit of `Metric.measure`, in which a percentage is a fraction.

    Attributes:
        values: [S], one value per network.
        per_image: [S,N], the values whose mean over the images they are. None if the metric is no such mean.
        resampled: [R,S], the values on R sets of resampled images. None if the metric is a mean over images.
        images: N, the number of test images.
        support: the smallest number of images that a value can rest on; N for most metrics.
    """

    values: np.ndarray
    per_image: np.ndarray | None
    resampled: np.ndarray | None
    images: int
    support: int

    @classmethod
    def of(cls, metric: Metric, predictions: Predictions) -> Self | None:
        """Measures a metric on the networks of a model.

        Args:
            metric: the metric.
            predictions: those of S networks on N images.

        Returns:
            The measured values. None if the metric is not defined for one of the networks.

        Raises:
            UserError: if the outcomes lack what the metric needs.
        """
        images = len(predictions.labels)
        if metric.is_mean:
            per_image = metric.per_image(predictions)
            return cls(per_image.mean(1), per_image, None, images, images)
        values = metric.measure(predictions)
        if np.isnan(values).any():
            return None
        resampled = metric.measure(predictions, resampled_images(images))
        return cls(values, None, resampled, images, metric.support(predictions))

    def minus(self, other: Self, rows: list[int], other_rows: list[int]) -> Self:
        """Subtracts the values of another model on the same images, network by network.

        Args:
            other: values of the same metric.
            rows: numbers of the networks of this model.
            other_rows: numbers of the networks of the other model, as many.
        """

        def paired(mine: np.ndarray | None, theirs: np.ndarray | None, axis: int) -> np.ndarray | None:
            if mine is None or theirs is None:
                return None
            return np.take(mine, rows, axis).astype(float) - np.take(theirs, other_rows, axis)

        return type(self)(
            paired(self.values, other.values, 0),
            paired(self.per_image, other.per_image, 0),
            paired(self.resampled, other.resampled, 1),
            self.images,
            min(self.support, other.support),
        )

    def squares(self) -> MeanSquares:
        """Returns the mean squares of seeds, images and rest, from which intervals come.

        For a metric that is no mean over images, the variance that is due to the images is that over the resampled
        images: of the mean over the networks, and of a single network. Their difference gives the residual variance.
        The mean squares are those of `support` images that have these variances.
        """
        if self.per_image is not None:
            return mean_squares(self.per_image)
        seeds, images = len(self.values), self.support
        of_images, of_one = np.nanvar(self.resampled.mean(1), ddof=1), np.nanvar(self.resampled, axis=0, ddof=1).mean()
        several = seeds > 1
        rest = max(of_one - of_images, 0.0) * seeds / (seeds - 1) if several else 0.0
        of_seeds = self.values.var(ddof=1) if several else 0.0
        return MeanSquares(
            seeds, images, self.values.mean(), images * of_seeds, seeds * images * of_images, images * rest
        )

    def bias(self) -> float:
        """Estimates how far the mean over the networks lies above the true one because there are few images.

        Returns:
            The mean over the resampled images minus that over the images; 0 for a metric that is a mean over images.
        """
        return 0.0 if self.resampled is None else float(np.nanmean(self.resampled) - self.values.mean())


@lru_cache(maxsize=2)
def resampled_images(images: int) -> np.ndarray:
    """Draws sets of images with replacement, the same ones in every process.

    Args:
        images: N, the number of test images, and of the images in each set.

    Returns:
        How often each image is in each set, float64 [R,N].
    """
    random = np.random.default_rng(derived_seed(0, "resampled images", images))
    sets = (random.integers(0, images, images) for _ in range(RESAMPLES))
    return np.array([np.bincount(one, minlength=images) for one in sets], dtype=float)
