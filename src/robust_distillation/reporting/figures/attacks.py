"""The figure of the accuracy under each attack, from clean images to the strongest attack."""

from __future__ import annotations

import pandas as pd

from robust_distillation.columns import METHOD, METRIC
from robust_distillation.comparison import Comparison
from robust_distillation.reporting.figures import charts
from robust_distillation.reporting.figures.figure import Figure, Panel
from robust_distillation.reporting.figures.legend import attack_keys, labels
from robust_distillation.reporting.table_spec import TableSpec, metric_title


def attacks(table: pd.DataFrame, spec: TableSpec, comparison: Comparison) -> Figure:
    """Draws the accuracy of the teacher and of each method under every attack.

    There is a row for the teacher and for each method, with one mark for each attack.

    Args:
        table: tables/main.csv, with the columns teacher, student, method, checkpoint, metric (`clean` or an attack) and
            mean (percent).
        spec: order of the methods and of the metrics. Students are shown at the checkpoint `spec.first`.
        comparison: the student and the teacher. Used are the student's rows with this teacher or without one (teacher
            `none`), and the teacher's own rows (student `-`).

    Returns:
        A figure of one panel, with a legend of the attacks.
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
