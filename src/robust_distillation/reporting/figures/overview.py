"""The figure of the accuracy under the strongest attack and on clean images."""

from __future__ import annotations

import pandas as pd

from robust_distillation.columns import METHOD, METRIC, SEED
from robust_distillation.comparison import Comparison
from robust_distillation.reporting.figures import charts
from robust_distillation.reporting.figures.dots import mean_and_seeds
from robust_distillation.reporting.figures.figure import Figure, Panel
from robust_distillation.reporting.table_spec import TableSpec, metric_title


def overview(table: pd.DataFrame, values: pd.DataFrame, spec: TableSpec, comparison: Comparison) -> Figure:
    """Draws the robust and the clean accuracy of the teacher and of each method, with 95 % intervals.

    Args:
        table: tables/main.csv: means over the seeds. Used columns: teacher, student, method, checkpoint, metric, mean,
            ci_low, ci_high (the last three in percent).
        values: accuracies of each seed in percent, as `statistics.accuracies.accuracies` returns them. Used columns:
            teacher, student, method, seed, checkpoint, metric, value.
        spec: order of the methods, and the strongest attack (`spec.strongest`). Students are shown at the checkpoint
            `spec.first`.
        comparison: the student and the teacher. Used are the student's rows with this teacher or without one (teacher
            `none`), and the teacher's own rows (student `-`).

    Returns:
        A figure of two panels: accuracy under the strongest attack, and on clean images.
    """
    means, seeds = (comparison.rows(spec.at_headline(frame)) for frame in (table, values))
    panels = []
    for metric in (spec.strongest, "clean"):
        title = metric_title(metric)
        frame = mean_and_seeds(seeds[seeds[METRIC] == metric], title, table=means[means[METRIC] == metric])
        ranked = frame[frame[SEED].isna()].sort_values("value", ascending=False)
        text = ", ".join(f"{row.method} {row.value:.1f}" for row in ranked.itertuples())
        chart = charts.dots(frame, spec.methods, f"{title} accuracy (%)")
        height = charts.height_of(frame[METHOD])
        panels.append(Panel(chart, f"{title} accuracy in percent: {text}", title, height=height))
    caption = (
        f"{spec.attacked}; checkpoint {spec.first}. Large: mean over the seeds, bar: its 95 % interval; small: each "
        "seed."
    )
    return Figure(f"{comparison.label}: accuracy", caption, panels)
