"""Computes accuracies, their means over seeds and their intervals from outcomes.

Outcomes are a table with one row per image and checkpoint of a trained model, and one boolean column per attack: see
`evaluation.outcomes`.
"""

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
    """Correct or not, for each seed and image of one model.

    Attributes:
        seeds: the S seeds.
        values: metric (`clean`, then the attacks) to a bool matrix [S,N]. An entry is true if the network of the seed
            classifies the image correctly; for an attack, the clean and the adversarial image.
    """

    seeds: list[int]
    values: dict[str, np.ndarray]


def matrices(outcomes: pd.DataFrame) -> Iterator[tuple[tuple[str, ...], Correct]]:
    """Arranges outcomes as matrices of seeds and images.

    Args:
        outcomes: table of outcomes.

    Yields:
        (teacher, student, method, checkpoint) and its matrices, in the order of the table.

    Raises:
        UserError: if the seeds of a model were not attacked on the same images.
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
    """Computes the accuracy of each model, seed, checkpoint and metric.

    Args:
        outcomes: table of outcomes.

    Returns:
        One row per accuracy. Columns: teacher, student, method, seed, checkpoint, `metric` (`clean` or an attack),
        `n_images` and `value` (percent).

    Raises:
        UserError: if the seeds of a model were not attacked on the same images.
    """
    rows = [
        {**dict(zip(GROUP, keys, strict=True)), SEED: seed, METRIC: metric, "n_images": len(images), "value": value}
        for keys, correct in matrices(outcomes)
        for metric, values in correct.values.items()
        for seed, images, value in zip(correct.seeds, values, 100 * values.mean(1), strict=True)
    ]
    return pd.DataFrame(rows, columns=[*NETWORK, METRIC, "n_images", "value"])


def class_accuracies(outcomes: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Computes the accuracy of each method in each class, over all seeds.

    Args:
        outcomes: outcomes of one student with one teacher, at one checkpoint.
        metric: `clean` or the name of an attack.

    Returns:
        Accuracies in percent: methods as rows, labels as columns.
    """
    correct = outcomes["label"] == outcomes["prediction"] if metric == CLEAN else outcomes[metric]
    return 100 * correct.astype(float).groupby([outcomes[METHOD], outcomes["label"]]).mean().unstack()


def summary(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Computes the mean accuracy over the seeds, with its standard deviation and confidence interval.

    The interval accounts for training again with other seeds and for testing on other images; with one seed, for other
    images only. See `intervals`.

    Args:
        outcomes: table of outcomes.

    Returns:
        One row per teacher, student, method, checkpoint and metric. Columns: these, `n_images`, `n_seeds`, `mean`, `sd`
        (sample standard deviation of the seeds' accuracies; nan for one seed), `ci_low` and `ci_high` (95 % interval of
        the mean). Accuracies are in percent.

    Raises:
        UserError: if the seeds of a model were not attacked on the same images.
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
    """Computes the mean of one number per seed, with its standard deviation and 95 % interval by Student's t.

    Args:
        values: one number per seed.

    Returns:
        `n_seeds`, `mean`, `sd`, `ci_low` and `ci_high`, the last three nan for one seed.
    """
    n, mean = len(values), values.mean()
    sd = values.std(ddof=1) if n > 1 else math.nan
    half = stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n) if n > 1 else math.nan
    return {"n_seeds": n, "mean": mean, "sd": sd, "ci_low": mean - half, "ci_high": mean + half}
