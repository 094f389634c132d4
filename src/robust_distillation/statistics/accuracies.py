"""From outcomes to accuracies with their spread."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from robust_distillation.errors import UserError
from robust_distillation.evaluation.outcomes import KEYS, attack_columns
from robust_distillation.statistics.intervals import half_width, mean_squares

GROUP = [key for key in KEYS if key != "seed"]


def accuracies(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Percent per run, checkpoint and metric: columns KEYS, metric, n_images, value. `clean` comes first."""
    held = outcomes[[*KEYS, *attack_columns(outcomes)]].copy()
    held.insert(len(KEYS), "clean", outcomes["label"] == outcomes["prediction"])
    metrics = [column for column in held.columns if column not in KEYS]
    groups = held.groupby(KEYS, sort=False)
    means = (100 * groups[metrics].mean()).reset_index().melt(KEYS, metrics, "metric", "value")
    return means.merge(groups.size().rename("n_images").reset_index(), on=KEYS)


def summary(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Over the seeds: n_seeds, n_images, mean, sd and the 95 % interval of the mean, in percent.

    sd is the sample standard deviation of the seeds' means, empty with one seed. The interval speaks of training again
    with other seeds and attacking other test images; with one seed, of other images alone. See `intervals`.
    """
    rows = []
    for keys, held in matrices(outcomes):
        named = dict(zip(GROUP, keys, strict=True))
        for metric, values in held.values.items():
            found, means = mean_squares(values), values.mean(1)
            half = half_width(found)
            rows.append({
                **named, "metric": metric, "n_images": found.images, "n_seeds": found.seeds, "mean": 100 * found.mean,
                "sd": 100 * means.std(ddof=1) if found.seeds > 1 else math.nan,
                "ci_low": 100 * max(found.mean - half, 0), "ci_high": 100 * min(found.mean + half, 1),
            })  # fmt: skip
    return pd.DataFrame(rows)


class Held(NamedTuple):
    """What was right: by metric, `clean` first, a matrix [seeds, images] of booleans."""

    seeds: list[int]
    values: dict[str, np.ndarray]


def matrices(outcomes: pd.DataFrame) -> Iterator[tuple[tuple[str, ...], Held]]:
    """For each teacher, student, method and checkpoint (GROUP) what was held. Raises UserError where the seeds' images
    are not the same."""
    metrics = attack_columns(outcomes)
    for keys, rows in outcomes.groupby(GROUP, sort=False):
        ordered = rows.sort_values(["seed", "index"])
        seeds = ordered["seed"].unique().tolist()
        index = ordered["index"].to_numpy()
        if len(index) % len(seeds) or (index.reshape(len(seeds), -1) != index[: len(index) // len(seeds)]).any():
            raise UserError(f"outcomes of {'/'.join(keys)}: the seeds were not attacked on the same images")
        columns = {"clean": ordered["label"] == ordered["prediction"], **{name: ordered[name] for name in metrics}}
        held = {name: column.to_numpy(dtype=bool).reshape(len(seeds), -1) for name, column in columns.items()}
        yield keys, Held(seeds, held)


def spread(values: pd.Series) -> dict[str, float]:
    """n_seeds, mean, sd and Student's t interval (95 %) of one number per seed; empty with one seed."""
    n, mean = len(values), values.mean()
    sd = values.std(ddof=1) if n > 1 else math.nan
    half = stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n) if n > 1 else math.nan
    return {"n_seeds": n, "mean": mean, "sd": sd, "ci_low": mean - half, "ci_high": mean + half}
