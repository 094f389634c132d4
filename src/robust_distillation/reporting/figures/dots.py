"""Data frames for `charts.dots`: the mean over the seeds with its spread, and the value of each seed."""

from __future__ import annotations

import pandas as pd

from robust_distillation.columns import METHOD, SEED, STUDENT, TEACHER_ROW
from robust_distillation.reporting.figures.legend import labels


def mean_and_seeds(
    values: pd.DataFrame, title: str, digits: int = 2, table: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Computes the table that `reporting.figures.charts.dots` draws: the mean over the seeds of each method, and the
    value of each seed.

    Args:
        values: values of one metric at one checkpoint, with a row for each teacher and each student training (one
            method and one seed). Used columns: `student` (`-` in a row about a teacher), `method`, `seed` and `value`.
        title: title of the metric, such as `AutoAttack`, for the column `label`.
        digits: number of decimals in the column `label`.
        table: means and 95 % intervals of the same networks in the same metric, such as rows of tables/main.csv. Used
            columns: `student`, `method`, `mean`, `ci_low` and `ci_high` (percent; the interval is cut at 0 and 100).
            None: means and standard deviations are computed from `values`.

    Returns:
        First one row for each teacher or method with the mean, then one row for each seed of the methods that have
        several seeds. Columns:

        - `method`: name of the method, or `teacher` in a row about a teacher.
        - `value`: the mean, or the value of the seed.
        - `low`, `high`: the interval of `table`, or without `table` the mean minus and plus one standard deviation. NaN
          in rows of seeds, and in rows of means of a single seed if `table` is None.
        - `seed`: the seed; missing in rows of means.
        - `label`: tooltip of the mark, such as `rslad, seed 0: AutoAttack 49.00`.
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
