"""Accuracy under each attack, from clean images to the strongest."""

from __future__ import annotations

import pandas as pd

from robust_distillation.columns import METHOD, METRIC
from robust_distillation.comparison import Comparison
from robust_distillation.reporting.figures import charts
from robust_distillation.reporting.figures.figure import Figure, Panel
from robust_distillation.reporting.figures.legend import attack_keys, labels
from robust_distillation.reporting.table_spec import TableSpec, metric_title


def attacks(table: pd.DataFrame, spec: TableSpec, comparison: Comparison) -> Figure:
    """Draws a mark per attack for every method at the headline's checkpoint.

    Args:
        table: tables/main.csv.
        spec: order of the methods and of the attacks.
        comparison: the students to draw, and their teacher.
    """
    rows = comparison.rows(spec.at_headline(table))
    metrics = [metric for metric in spec.metrics if metric in set(rows[METRIC])]
    titles = [metric_title(metric) for metric in metrics]
    frame = pd.DataFrame({METHOD: labels(rows), METRIC: rows[METRIC].map(metric_title), "value": rows["mean"]})
    frame["label"] = [f"{row.method}, {row.metric}: {row.value:.1f} %" for row in frame.itertuples()]
    means = frame.groupby(METRIC)["value"].mean()
    text = ", ".join(f"{title} {means[title]:.1f}" for title in titles)
    panel = Panel(
        charts.by_attack(frame, spec.methods, titles),
        f"Accuracy by method under each attack; over all methods on average: {text}",
        height=charts.height_of(frame[METHOD]),
    )
    caption = f"{spec.attacked}; checkpoint {spec.first}; mean over the seeds."
    return Figure(f"{comparison.label}: accuracy by attack", caption, [panel], attack_keys(titles))
