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

    Robust accuracy is that under the strongest attack. A large mark is the mean over the seeds. Small marks are the
    single seeds, for methods with several seeds.

    Args:
        table: tables/main.csv or `statistics.accuracies.summary(outcomes)`: means over the seeds. Used columns:
            `teacher`, `student`, `method`, `checkpoint`, `metric`, `mean`, `ci_low` and `ci_high` (the last three in
            percent).
        values: accuracies of each seed in percent, as `statistics.accuracies.accuracies` returns them. Used columns:
            `teacher`, `student`, `method`, `seed`, `checkpoint`, `metric` (`clean` or an attack), `value`.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are `methods` (order of the rows), the last of `metrics` (the strongest
            attack), and the first of `checkpoints`, at which students are shown.
        comparison: pair of the names of a teacher and a student network, such as `Comparison(teacher="wide",
            student="small")`. Drawn are the students of this network that were trained with this teacher or by a method
            without a teacher (`teacher` is `none`), and the teacher, whose rows have the student `-`.

    Returns:
        A `figures.figure.Figure` (title, caption, panels with Vega-Altair charts, legend) of two panels, accuracy under
        the strongest attack and on clean images, for `figures.figure.save` or as an element of a section of the report.
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
