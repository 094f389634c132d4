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
    """Correctness of the predictions of one model, for each seed and test image.

    A model here is one method's student for one teacher (or one teacher) at one checkpoint. It has one network for each
    training seed. `matrices` makes these objects from a table.

    Attributes:
        seeds: the S training seeds, ascending.
        values: metric to a bool array [S,N]. The metrics are `clean` and the names of the attacks, such as `pgd20`. Row
            s belongs to `seeds[s]`, and the columns are the N test images in the order of their positions in the test
            split. For `clean`, an entry is True if the network classifies the clean image correctly. For an attack, it
            is True if the network classifies both the clean and the adversarial image correctly.
    """

    seeds: list[int]
    values: dict[str, np.ndarray]


def matrices(outcomes: pd.DataFrame) -> Iterator[tuple[tuple[str, ...], Correct]]:
    """Arranges a table of outcomes as one bool array of seeds x images for each model and metric.

    Args:
        outcomes: one row per test image of each trained network, with the columns `teacher`, `student`, `method`,
            `seed`, `checkpoint`, `index` (position in the test split), `label`, `prediction` (class of the clean
            image), and one bool column per attack (True if the clean and the adversarial image are both classified
            correctly). `evaluation.outcomes.read_outcomes` returns such a table.

    Yields:
        Pairs of a key (teacher, student, method, checkpoint), such as ("wide", "small", "rslad", "best"), and the
            `Correct` of this model: `seeds`, and `values`, which maps a metric to a bool array [S,N]. The keys come in
            the order of their first rows in `outcomes`.

    Raises:
        UserError: if the seeds of a model were not attacked on the same images. It is raised when the iteration reaches
            that model.
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
    """Computes the accuracy of each network in each metric.

    Args:
        outcomes: one row per test image of each trained network, with the columns `teacher`, `student`, `method`,
            `seed`, `checkpoint`, `index` (position in the test split), `label`, `prediction` (class of the clean
            image), and one bool column per attack (True if the clean and the adversarial image are both classified
            correctly).

    Returns:
        One row per teacher, student, method, seed, checkpoint and metric. Columns: these six, `n_images` (number of
        test images) and `value` (accuracy in percent). `metric` is `clean` or the name of an attack.

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
    """Computes the accuracy of each method's students in each class, over the images of all seeds.

    Args:
        outcomes: one row per test image of each trained network, of one student architecture with one teacher at one
            checkpoint. It needs the columns `method`, `label`, `prediction` (class of the clean image), and the bool
            column `metric` if that is an attack (True if the clean and the adversarial image are both classified
            correctly).
        metric: `clean` or the name of an attack, such as `pgd20`.

    Returns:
        Accuracies in percent, with one row per method (index: its name, such as `rslad`) and one column per label (an
        int), both sorted. NaN if a method has no image of a class.
    """
    correct = outcomes["label"] == outcomes["prediction"] if metric == CLEAN else outcomes[metric]
    return 100 * correct.astype(float).groupby([outcomes[METHOD], outcomes["label"]]).mean().unstack()


def summary(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Computes the mean accuracy over the seeds, with its standard deviation and 95 % confidence interval.

    The interval treats seeds and test images as two crossed random samples: it covers the accuracy to be expected after
    training again with other seeds and testing on other images. With one seed it covers other images only. Its half
    length is that of `statistics.intervals.half_width` (Student's t with Satterthwaite's degrees of freedom, and an
    exact binomial bound as the least length).

    Args:
        outcomes: one row per test image of each trained network, with the columns `teacher`, `student`, `method`,
            `seed`, `checkpoint`, `index` (position in the test split), `label`, `prediction` (class of the clean
            image), and one bool column per attack (True if the clean and the adversarial image are both classified
            correctly).

    Returns:
        One row per teacher, student, method, checkpoint and metric (`clean` or an attack). Columns: these five,
        `n_images`, `n_seeds`, `mean`, `sd` (sample standard deviation of the seeds' accuracies; NaN for one seed),
        `ci_low` and `ci_high` (the interval of the mean, cut at 0 and 100). Accuracies are in percent.

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
        values: one number per seed, in any unit.

    Returns:
        A dict with `n_seeds` (number of values), `mean`, `sd` (sample standard deviation), `ci_low` and `ci_high` (the
        interval of the mean), in the unit of the values. `sd`, `ci_low` and `ci_high` are NaN for one seed.
    """
    n, mean = len(values), values.mean()
    sd = values.std(ddof=1) if n > 1 else math.nan
    half = stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n) if n > 1 else math.nan
    return {"n_seeds": n, "mean": mean, "sd": sd, "ci_low": mean - half, "ci_high": mean + half}
