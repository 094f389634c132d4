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
    """Values of a metric for the S networks of a model, or differences of two models in a metric.

    All values are in the unit of `Metric.measure`, in which a percentage is a fraction: 0.5 for 50 %.

    A model has one network for each of S seeds. `ModelOutcomes.measured` and `statistics.comparing.paired` make these
    objects; `squares` gives the mean squares from which intervals are computed.

    Attributes:
        values: [S], one value per network.
        per_image: [S,N]: for each network and test image the number whose mean over the images is in `values`, such as
            1.0 for an image that is classified correctly. None if the metric is no mean over images.
        resampled: [R,S], the metric on R = 500 (RESAMPLES) sets of N images that are drawn from the test images with
            replacement. None if the metric is a mean over images.
        images: N, the number of test images.
        support: the smallest number of images that a value can depend on, such as those of the smallest class for the
            worst-class accuracy; N for most metrics.
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
            metric: the metric, as `metrics.get("worst_class.autoattack")` returns it.
            predictions: predictions of S networks on the same N images: `labels` [N], `clean_correct` and `correct`
                [S,N] and, if stored, `predicted`, `confidence` [S,N] and `teacher` [N].

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
            other: measured values of the same metric for another model, on the same images in the same order.
            rows: positions in `values` of the networks of this model, for example [0, 1, 2].
            other_rows: positions of the networks of the other model, as many as in `rows`. The network at other_rows[i]
                is subtracted from that at rows[i].

        Returns:
            The differences, a `Measured` with S = len(rows).
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
        """Returns the mean squares over seeds, images and their interaction, from which intervals and p values are
        computed.

        A metric that is a mean over images has those of the table `per_image`, from
        `statistics.intervals.mean_squares`. For any other metric the variance that is due to the images is estimated by
        the variance over the sets of resampled images, once for the mean over the networks and once for a single
        network. The difference of the two variances gives the interaction of seeds and images. The returned mean
        squares are those of a seeds x images table with `support` images that would have these variances.

        Returns:
            A `MeanSquares` with the numbers `seeds` and `images`, `mean`, and the mean squares `of_seeds`, `of_images`
            and `rest` (interaction).
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
        """Estimates by how much the mean over the networks exceeds its true value because there are few images.

        Returns:
            The mean over all sets of resampled images and all networks, minus the mean of `values`, in the unit of
            `values`; 0 for a metric that is a mean over images.
        """
        return 0.0 if self.resampled is None else float(np.nanmean(self.resampled) - self.values.mean())


@lru_cache(maxsize=2)
def resampled_images(images: int) -> np.ndarray:
    """Draws 500 sets (RESAMPLES) of test images with replacement, the same sets in every process.

    On them a metric that is no mean over images is computed again, to estimate how much it varies with the images.

    Args:
        images: N, the number of test images, and the number of images in each set.

    Returns:
        How often each image is in each set, float64 [R,N] with R = 500.
    """
    random = np.random.default_rng(derived_seed(0, "resampled images", images))
    sets = (random.integers(0, images, images) for _ in range(RESAMPLES))
    return np.array([np.bincount(one, minlength=images) for one in sets], dtype=float)
