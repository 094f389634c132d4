"""Accuracy under the strongest attack and on clean images, at a glance."""

from __future__ import annotations

import pandas as pd

from robust_distillation.columns import METHOD, METRIC, SEED
from robust_distillation.comparison import Comparison
from robust_distillation.reporting.figures import charts
from robust_distillation.reporting.figures.dots import mean_and_seeds
from robust_distillation.reporting.figures.figure import Figure, Panel
from robust_distillation.reporting.table_spec import TableSpec, metric_title


def overview(table: pd.DataFrame, values: pd.DataFrame, spec: TableSpec, comparison: Comparison) -> Figure:
    """Draws both accuracies of every method at the headline's checkpoint.

    Args:
        table: tables/main.csv.
        values: accuracies in percent per run, as `statistics.accuracies` returns them.
        spec: order of the methods, and which attack and checkpoint are the headline's.
        comparison: the students to draw, and their teacher.
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
