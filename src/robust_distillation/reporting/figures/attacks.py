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
    """Draws the accuracy of the teacher and of each method under every attack, from clean images to the strongest
    attack.

    There is a row for the teacher and for each method. A row has one mark for each attack, at its accuracy in percent,
    and a line from the lowest accuracy to the highest.

    Args:
        table: tables/main.csv or `statistics.accuracies.summary(outcomes)`: means over the seeds. Used columns:
            `teacher`, `student`, `method`, `checkpoint`, `metric` (`clean` or an attack) and `mean` (percent).
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are `methods` (order of the rows), `metrics` (the weakest attack first),
            and the first of `checkpoints`, at which students are shown.
        comparison: pair of the names of a teacher and a student network, such as `Comparison(teacher="wide",
            student="small")`. Drawn are the students of this network that were trained with this teacher or by a method
            without a teacher (`teacher` is `none`), and the teacher, whose rows have the student `-`.

    Returns:
        A `figures.figure.Figure` (title, caption, panels with Vega-Altair charts, legend) of one panel, with a legend
        of the attacks, for `figures.figure.save` or as an element of a section of the report.
    """
    rows = comparison.rows(spec.at_headline(table[table[METRIC].isin(spec.metrics)]))
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
