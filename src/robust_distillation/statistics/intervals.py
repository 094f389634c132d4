"""Computes confidence intervals and p values of means over crossed seeds and images.

An outcome x_si is 1 if the network of seed s classifies image i correctly, else 0. The networks of all S seeds are
tested on the same N images, so outcomes form a two-way crossed layout, x_si = mu + a_s + b_i + e_si. Their mean varies
with the seeds, with the images, and with both together. Satterthwaite, Biometrics Bulletin 2 (1946), gives the degrees
of freedom of a sum of mean squares. docs/statistics.md explains why this interval was chosen and how often it covers.
"""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

ALPHA = 0.05  # 1 - confidence level: of a single interval, and of a whole family of comparisons together


class MeanSquares(NamedTuple):
    """Mean squares over seeds, images and their interaction of a seeds x images table of outcomes.

    The networks of all seeds are tested on the same images, so that the variance of the mean has a part of the seeds
    and a part of the images. `statistics.intervals.mean_squares` computes these objects from outcomes [..., S, N];
    intervals and p values follow from them. For outcomes [S, N] each field is a number. For outcomes with leading
    dimensions, `seeds` and `images` are numbers, and every other field is an array of the shape of the leading
    dimensions.

    The mean squares are those of a two-way analysis of variance with one value per seed and image.

    Attributes:
        seeds: S, the number of seeds.
        images: N, the number of images.
        mean: mean of the outcomes.
        of_seeds: mean square of the seeds, with S - 1 degrees of freedom: N times the sample variance of the seeds'
            means.
        of_images: mean square of the images, with N - 1 degrees of freedom: S times the sample variance of the images'
            means.
        rest: mean square of the interaction of seeds and images, with (S - 1)(N - 1) degrees of freedom.
        degrees: degrees of freedom of `of_seeds`. None: S - 1. They are more if methods share what is known of the
            variance over seeds, see `statistics.sharing`.
    """

    seeds: ArrayLike
    images: ArrayLike
    mean: ArrayLike
    of_seeds: ArrayLike
    of_images: ArrayLike
    rest: ArrayLike
    degrees: ArrayLike | None = None


def mean_squares(outcomes: ArrayLike) -> MeanSquares:
    """Computes the mean squares over seeds, images and their interaction of a seeds x images table.

    The mean squares are those of a two-way analysis of variance with one value per seed and image. `half_width` and
    `p_value` make intervals and p values of them.

    Args:
        outcomes: [..., S, N] for S seeds and N images. The values are 0 or 1 (image classified correctly), or
            differences of two such arrays (-1, 0, 1).

    Returns:
        A `MeanSquares`: the numbers `seeds` (S) and `images` (N), and the fields `mean`, `of_seeds` (S - 1 degrees of
        freedom), `of_images` (N - 1) and `rest` (interaction, (S - 1)(N - 1)), each of the shape of the leading
        dimensions. With one seed, `of_seeds` and `rest` are 0; with one image, `of_images` and `rest` are 0.
    """
    x = np.asarray(outcomes, dtype=float)
    seeds, images = x.shape[-2:]
    mean = x.mean((-2, -1))
    by_seed, by_image = x.mean(-1) - mean[..., None], x.mean(-2) - mean[..., None]
    of_seeds, of_images = images * (by_seed**2).sum(-1), seeds * (by_image**2).sum(-1)
    rest = ((x - mean[..., None, None]) ** 2).sum((-2, -1)) - of_seeds - of_images
    return MeanSquares(
        seeds, images, mean,
        of_seeds / max(1, seeds - 1), of_images / max(1, images - 1),
        np.maximum(rest, 0) / max(1, (seeds - 1) * (images - 1)),
    )  # fmt: skip


def half_width(squares: MeanSquares, alpha: ArrayLike = ALPHA) -> np.ndarray:
    """Computes half the length of the two-sided confidence interval of the mean, mean +- half length.

    The interval covers the mean that is to be expected with other seeds and other images; with one seed, with other
    images only. The half length is the largest of these three:

    - Student's t over the means of the S seeds, with S - 1 degrees of freedom, or `squares.degrees`. It is left out for
      one seed.
    - Student's t with the variance components of seeds and images, and Satterthwaite's degrees of freedom. With one
      seed this is Student's t over the images.
    - 1 - (alpha / 2)^(1 / N), the exact binomial bound of the probability of an event that occurred in none of N
      images.

    Args:
        squares: a `MeanSquares` as `statistics.intervals.mean_squares` returns it: mean squares over seeds
            (`of_seeds`), images (`of_images`) and their interaction (`rest`) of a seeds x images table, with its `mean`
            and the numbers `seeds` and `images`.
        alpha: 1 - confidence level, in (0, 1): a number, or an array that broadcasts with the fields of `squares`. The
            default is the constant ALPHA, 0.05.

    Returns:
        The half length in the unit of the outcomes (a fraction of the images, so 0.01 is one percentage point), of the
        shape of the fields of `squares`. It is never NaN.
    """
    parts = [stats.t.ppf(1 - np.asarray(alpha) / 2, df) * error for error, df in _errors(squares)]
    return reduce(np.fmax, [*parts, 1 - (np.asarray(alpha) / 2) ** (1 / np.asarray(squares.images))])


def p_value(squares: MeanSquares, value: ArrayLike = 0.0) -> np.ndarray:
    """Computes the two-sided p value of the hypothesis that the true mean is `value`.

    It is the smallest alpha for which the interval mean +- `half_width(squares, alpha)` does not contain `value`: the
    largest of the p values of Student's t test over the seeds (S - 1 degrees of freedom), of Student's t test with the
    variance components of seeds and images (Satterthwaite's degrees of freedom), and of the exact binomial bound.

    Args:
        squares: a `MeanSquares` as `statistics.intervals.mean_squares` returns it: mean squares over seeds
            (`of_seeds`), images (`of_images`) and their interaction (`rest`) of a seeds x images table, with its `mean`
            and the numbers `seeds` and `images`.
        value: mean under the hypothesis, in the unit of the outcomes (a fraction of the images).

    Returns:
        The p value in [0, 1], of the shape of the fields of `squares`.
    """
    distance = np.minimum(np.abs(np.asarray(squares.mean) - value), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [2 * stats.t.sf(np.where(distance > 0, distance / error, 0), df) for error, df in _errors(squares)]
    return np.minimum(reduce(np.fmax, [*parts, 2 * (1 - distance) ** np.asarray(squares.images)]), 1)


def holm(p_values: ArrayLike) -> np.ndarray:
    """Adjusts the p values of a family of hypotheses for their number, by Holm's method.

    The smallest of m p values is multiplied by m, the next by m - 1, and so on; none is smaller than the one before.
    The method is from Scandinavian Journal of Statistics 6 (1979).

    Args:
        p_values: p values in [0, 1], or NaN for a hypothesis that counts but was not tested, [m].

    Returns:
        The adjusted p values in [0, 1], [m]; NaN where `p_values` are. Among the hypotheses whose adjusted p value is
        below 0.05 any is true with a probability of at most 5 %.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)  # NaN last
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted


def _errors(squares: MeanSquares) -> list[tuple[np.ndarray, np.ndarray]]:
    """Computes two standard errors of the mean, each with its degrees of freedom: by seeds alone, and by components.

    The variance by components is (MS_seeds + MS_images - MS_rest) / (S N). It is kept at or above the variance by
    seeds alone and by images alone, and its degrees of freedom between theirs. Otherwise a difference that is small by
    chance would give an interval that is too short.
    """
    seeds, images = np.asarray(squares.seeds), np.asarray(squares.images)
    of_seeds, of_images, rest = (np.asarray(part, dtype=float) for part in squares[3:6])
    df_seeds = np.maximum(seeds - 1 if squares.degrees is None else np.asarray(squares.degrees, dtype=float), 1)
    df_images = np.maximum(images - 1, 1)
    least, most = np.minimum(df_seeds, df_images), np.maximum(df_seeds, df_images)
    together = np.maximum(of_seeds + of_images - rest, np.maximum(of_seeds, of_images))
    spread = of_seeds**2 / df_seeds + of_images**2 / df_images + rest**2 / (df_seeds * df_images)
    df = np.where(spread > 0, together**2 / np.where(spread > 0, spread, 1), least)
    df = np.where(seeds > 1, np.clip(df, least, most), df_images)
    alone = np.where(seeds > 1, np.sqrt(of_seeds / (seeds * images)), np.nan)
    return [(alone, df_seeds), (np.sqrt(together / (seeds * images)), df)]


def expected_mean_squares(squares: MeanSquares, seeds: ArrayLike, images: ArrayLike | None = None) -> MeanSquares:
    """Predicts the mean squares for other numbers of seeds and images, from the estimated variance components.

    It serves to predict how long an interval would be with more seeds.

    Args:
        squares: a `MeanSquares` as `statistics.intervals.mean_squares` returns it: mean squares over seeds
            (`of_seeds`), images (`of_images`) and their interaction (`rest`) of a seeds x images table, with its `mean`
            and the numbers `seeds` and `images`.
        seeds: number of seeds, or an array of such numbers.
        images: number of images, or an array of such numbers. None: as many as in `squares`.

    Returns:
        The expected mean squares: `seeds` and `images` are the arguments, `mean` and `rest` are those of `squares`.
        `of_seeds` is rest + images * (variance of the seeds' effect), and `of_images` is rest + seeds * (variance of
        the images' effect), with the variances of `components`. `degrees` grow as the number of seeds less 1.
    """
    images = squares.images if images is None else images
    varying_seeds, varying_images = components(squares)
    degrees = squares.degrees
    if degrees is not None:
        degrees = np.asarray(degrees) * (np.asarray(seeds) - 1) / np.maximum(np.asarray(squares.seeds) - 1, 1)
    return MeanSquares(
        seeds, images, squares.mean,
        squares.rest + images * varying_seeds, squares.rest + seeds * varying_images, squares.rest, degrees,
    )  # fmt: skip


def components(squares: MeanSquares) -> tuple[np.ndarray, np.ndarray]:
    """Estimates the variance components of the seeds and of the images.

    Args:
        squares: a `MeanSquares` as `statistics.intervals.mean_squares` returns it: mean squares over seeds
            (`of_seeds`), images (`of_images`) and their interaction (`rest`) of a seeds x images table, with its `mean`
            and the numbers `seeds` and `images`.

    Returns:
        Two variances, in the squared unit of the outcomes: of the effect of the seed, (of_seeds - rest) / N, and of the
        effect of the image, (of_images - rest) / S. Negative estimates are set to 0.
    """
    of_seeds = np.maximum(squares.of_seeds - squares.rest, 0) / squares.images
    of_images = np.maximum(squares.of_images - squares.rest, 0) / squares.seeds
    return of_seeds, of_images
