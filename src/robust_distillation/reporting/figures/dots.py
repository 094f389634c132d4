"""Frames of `charts.dots`: the mean over the seeds, its spread, and each seed."""

from __future__ import annotations

import pandas as pd

from robust_distillation.columns import METHOD, SEED, STUDENT, TEACHER_ROW
from robust_distillation.reporting.figures.legend import labels


def mean_and_seeds(
    values: pd.DataFrame, title: str, digits: int = 2, table: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Returns a row per method for the mean over its seeds, and one per seed if there are several.

    Args:
        values: a row per run, of one metric: teacher, student, method, seed, value.
        title: the metric's, for the rows' labels.
        digits: decimals in the labels.
        table: means and 95 % intervals of the same methods, as in tables/main.csv: mean, ci_low, ci_high in percent.
            With None the bar is one standard deviation.

    Returns:
        Columns method, value, low, high, seed (missing in rows of means), label.
    """
    named = values.assign(method=labels(values))
    if table is None:
        groups = named.groupby(METHOD, sort=False)["value"]
        mean, sd = groups.mean(), groups.std(ddof=1)
        means = pd.DataFrame({"value": mean, "low": mean - sd, "high": mean + sd}).reset_index()
    else:
        means = pd.DataFrame({
            METHOD: labels(table), "value": table["mean"], "low": table["ci_low"].clip(0, 100),
            "high": table["ci_high"].clip(0, 100),
        })  # fmt: skip
    what = "95 % interval" if table is not None else "mean ± sd"
    means["label"] = [
        f"{row.method}: {title} {row.value:.{digits}f}"
        + ("" if pd.isna(row.low) else f" ({what} {row.low:.{digits}f} to {row.high:.{digits}f})")
        for row in means.itertuples()
    ]
    seeds = named.loc[named[STUDENT] != TEACHER_ROW, [METHOD, SEED, "value"]]
    seeds = seeds[seeds.groupby(METHOD)[SEED].transform("count") > 1]
    seeds["label"] = [f"{row.method}, seed {row.seed}: {title} {row.value:.{digits}f}" for row in seeds.itertuples()]
    found = pd.concat([means, seeds], ignore_index=True)
    return found.astype({"low": float, "high": float})
