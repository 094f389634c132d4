"""From outcomes to accuracies with their spread."""

from __future__ import annotations

import math

import pandas as pd
from scipy import stats

from robust_distillation.evaluation.outcomes import KEYS, attack_columns

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

    sd is the sample standard deviation; the interval is Student's t with n_seeds - 1 degrees of freedom. It speaks of
    training again with other seeds and attacking the same images, not of other images. With one seed all are empty.
    """
    rows = []
    for keys, group in accuracies(outcomes).groupby([*GROUP, "metric"], sort=False):
        named = dict(zip([*GROUP, "metric"], keys, strict=True))
        rows.append({**named, "n_images": group["n_images"].iloc[0], **spread(group["value"])})
    return pd.DataFrame(rows)


def spread(values: pd.Series) -> dict[str, float]:
    """n_seeds, mean, sd, ci_low and ci_high of one number per seed, as `summary` has them."""
    n, mean = len(values), values.mean()
    sd = values.std(ddof=1) if n > 1 else math.nan
    half = stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n) if n > 1 else math.nan
    return {"n_seeds": n, "mean": mean, "sd": sd, "ci_low": mean - half, "ci_high": mean + half}
