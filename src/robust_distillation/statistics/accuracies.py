"""Accuracies from outcomes, with their spread over seeds and images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from robust_distillation.columns import GROUP, METHOD, METRIC, NETWORK, SEED
from robust_distillation.errors import UserError
from robust_distillation.evaluation.outcomes import attack_columns
from robust_distillation.statistics.intervals import half_width, mean_squares

CLEAN = "clean"  # the metric without an attack


class Correct(NamedTuple):
    """Right or wrong for each seed and image.

    Attributes:
        seeds: the S seeds.
        values: by metric, `clean` first, booleans [S,N]: both the clean and the attacked prediction are right.
    """

    seeds: list[int]
    values: dict[str, np.ndarray]


def matrices(outcomes: pd.DataFrame) -> Iterator[tuple[tuple[str, ...], Correct]]:
    """Yields (teacher, student, method, checkpoint) and its outcomes, in the order of the frame.

    Raises:
        UserError: the seeds of a group were not attacked on the same images.
    """
    metrics = attack_columns(outcomes)
    for keys, rows in outcomes.groupby(GROUP, sort=False):
        ordered = rows.sort_values([SEED, "index"])
        seeds = ordered[SEED].unique().tolist()
        index = ordered["index"].to_numpy()
        if len(index) % len(seeds) or (index.reshape(len(seeds), -1) != index[: len(index) // len(seeds)]).any():
            raise UserError(f"outcomes of {'/'.join(keys)}: the seeds were not attacked on the same images")
        columns = {CLEAN: ordered["label"] == ordered["prediction"], **{name: ordered[name] for name in metrics}}
        values = {name: column.to_numpy(dtype=bool).reshape(len(seeds), -1) for name, column in columns.items()}
        yield keys, Correct(seeds, values)


def accuracies(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Returns a row per run, checkpoint and metric: NETWORK, metric, n_images, value (percent)."""
    rows = [
        {**dict(zip(GROUP, keys, strict=True)), SEED: seed, METRIC: metric, "n_images": len(images), "value": value}
        for keys, correct in matrices(outcomes)
        for metric, values in correct.values.items()
        for seed, images, value in zip(correct.seeds, values, 100 * values.mean(1), strict=True)
    ]
    return pd.DataFrame(rows, columns=[*NETWORK, METRIC, "n_images", "value"])


def class_accuracies(outcomes: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Returns the accuracy in percent of each method (row) and label (column), mean over the seeds.

    Args:
        outcomes: rows of one comparison at one checkpoint.
        metric: `clean` or an attack.
    """
    correct = outcomes["label"] == outcomes["prediction"] if metric == CLEAN else outcomes[metric]
    return 100 * correct.astype(float).groupby([outcomes[METHOD], outcomes["label"]]).mean().unstack()


def summary(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Returns a row per group and metric: n_seeds, n_images, mean, sd, ci_low and ci_high, in percent.

    sd is the sample standard deviation of the seeds' means, empty with one seed. The interval (95 %) is of the mean
    for other seeds and other test images; with one seed, for other images alone. See `intervals`.
    """
    rows = []
    for keys, correct in matrices(outcomes):
        named = dict(zip(GROUP, keys, strict=True))
        for metric, values in correct.values.items():
            squares, means = mean_squares(values), values.mean(1)
            half = half_width(squares)
            rows.append({
                **named, METRIC: metric, "n_images": squares.images, "n_seeds": squares.seeds,
                "mean": 100 * squares.mean, "sd": 100 * means.std(ddof=1) if squares.seeds > 1 else math.nan,
                "ci_low": 100 * max(squares.mean - half, 0), "ci_high": 100 * min(squares.mean + half, 1),
            })  # fmt: skip
    return pd.DataFrame(rows)


def spread(values: pd.Series) -> dict[str, float]:
    """Returns n_seeds, mean, sd and Student's t interval (95 %) of one number per seed; one seed has no sd."""
    n, mean = len(values), values.mean()
    sd = values.std(ddof=1) if n > 1 else math.nan
    half = stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n) if n > 1 else math.nan
    return {"n_seeds": n, "mean": mean, "sd": sd, "ci_low": mean - half, "ci_high": mean + half}
