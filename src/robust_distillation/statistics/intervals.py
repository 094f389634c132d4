"""How well a mean over seeds and images is known: confidence intervals and p values of crossed 0/1 outcomes.

Every seed's network sees the same N images, so outcomes form a two-way crossed layout, x_si = mu + a_s + b_i + e_si,
and a mean over them varies with the seeds, with the images, and with both together. Satterthwaite, Biometrics Bulletin
2 (1946), gives the degrees of freedom of the sum of their mean squares. Why this interval and no other, and how often
it covers: docs/statistics.md.
"""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

ALPHA = 0.05  # of an interval by itself, and of a whole family together


class MeanSquares(NamedTuple):
    """The analysis of variance of outcomes [..., S, N]: numbers, or arrays of the shape of what comes before [S, N]."""

    seeds: ArrayLike  # S
    images: ArrayLike  # N
    mean: ArrayLike
    of_seeds: ArrayLike  # with S - 1 degrees of freedom
    of_images: ArrayLike  # N - 1
    rest: ArrayLike  # (S - 1)(N - 1)


def mean_squares(outcomes: ArrayLike) -> MeanSquares:
    """outcomes [..., S, N]: 0 or 1, or differences of two of these. With one seed, or one image, what cannot be
    estimated is 0."""
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


def half_width(found: MeanSquares, alpha: ArrayLike = ALPHA) -> np.ndarray:
    """Half the length of the 1 - alpha interval of the mean, as a fraction: the longest of three.

    Student's t over the seeds' means; Student's t with the variance components of seeds and images, and Satterthwaite's
    degrees of freedom; and what N images can say at most: if an event was never seen on N of them, the exact binomial
    bound of its probability is 1 - (alpha / 2)^(1 / N). The first is left out where there is one seed: then the
    interval speaks of other images only.
    """
    parts = [stats.t.ppf(1 - np.asarray(alpha) / 2, df) * error for error, df in _errors(found)]
    return reduce(np.fmax, [*parts, 1 - (np.asarray(alpha) / 2) ** (1 / np.asarray(found.images))])


def p_value(found: MeanSquares, value: ArrayLike = 0.0) -> np.ndarray:
    """Two-sided, of the hypothesis that the true mean is `value`: the smallest alpha whose interval leaves it out."""
    apart = np.minimum(np.abs(np.asarray(found.mean) - value), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [2 * stats.t.sf(np.where(apart > 0, apart / error, 0), df) for error, df in _errors(found)]
    return np.minimum(reduce(np.fmax, [*parts, 2 * (1 - apart) ** np.asarray(found.images)]), 1)


def _errors(found: MeanSquares) -> list[tuple[np.ndarray, np.ndarray]]:
    """Standard errors of the mean, each with its degrees of freedom: of the seeds alone, and of both together.

    The variance by components, (MS_seeds + MS_images - MS_rest) / (S N), is kept at or above that of either alone, and
    its degrees of freedom between theirs; where the difference comes out small by chance, both would be too good.
    """
    seeds, images = np.asarray(found.seeds), np.asarray(found.images)
    of_seeds, of_images, rest = (np.asarray(part, dtype=float) for part in found[3:])
    least, most = np.maximum(np.minimum(seeds, images) - 1, 1), np.maximum(np.maximum(seeds, images) - 1, 1)
    df_seeds, df_images = np.maximum(seeds - 1, 1), np.maximum(images - 1, 1)
    together = np.maximum(of_seeds + of_images - rest, np.maximum(of_seeds, of_images))
    spread = of_seeds**2 / df_seeds + of_images**2 / df_images + rest**2 / (df_seeds * df_images)
    df = np.where(spread > 0, together**2 / np.where(spread > 0, spread, 1), least)
    df = np.where(seeds > 1, np.clip(df, least, most), df_images)
    alone = np.where(seeds > 1, np.sqrt(of_seeds / (seeds * images)), np.nan)
    return [(alone, df_seeds), (np.sqrt(together / (seeds * images)), df)]


def planned(found: MeanSquares, seeds: ArrayLike, images: ArrayLike | None = None) -> MeanSquares:
    """What other numbers of seeds and images would give, expected from the variance components found."""
    images = found.images if images is None else images
    varying_seeds, varying_images = components(found)
    return MeanSquares(
        seeds, images, found.mean,
        found.rest + images * varying_seeds, found.rest + seeds * varying_images, found.rest,
    )  # fmt: skip


def components(found: MeanSquares) -> tuple[np.ndarray, np.ndarray]:
    """The variances of the seeds' and of the images' effects, at least 0."""
    of_seeds = np.maximum(found.of_seeds - found.rest, 0) / found.images
    of_images = np.maximum(found.of_images - found.rest, 0) / found.seeds
    return of_seeds, of_images
