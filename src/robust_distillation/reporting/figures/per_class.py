"""Robust accuracy of each class."""

from __future__ import annotations

import pandas as pd

from robust_distillation.comparison import Comparison
from robust_distillation.reporting.figures import charts
from robust_distillation.reporting.figures.figure import Figure, Panel
from robust_distillation.reporting.figures.legend import TEACHER, labels, swatches
from robust_distillation.reporting.figures.style import SEQUENTIAL
from robust_distillation.reporting.table_spec import TableSpec, metric_title
from robust_distillation.statistics.accuracies import class_accuracies

NAMED = 20  # classes at most whose columns have a name and numbers


def by_class(outcomes: pd.DataFrame, spec: TableSpec, classes: tuple[str, ...], comparison: Comparison) -> pd.DataFrame:
    """Returns the accuracy in percent under the strongest attack, mean over the seeds at the headline's checkpoint.

    Rows are `teacher` and the methods in the experiment's order, columns the labels 0 to K-1. A class without a test
    image is missing (NaN).

    Args:
        outcomes: those of all models.
        spec: order of the methods, and which attack and checkpoint are the headline's.
        classes: names of the K classes.
        comparison: the students, and their teacher.
    """
    rows = comparison.rows(spec.at_headline(outcomes))
    means = class_accuracies(rows.assign(method=labels(rows)), spec.strongest).reindex(columns=range(len(classes)))
    return means.reindex([name for name in [TEACHER, *spec.methods] if name in means.index])


def per_class(means: pd.DataFrame, spec: TableSpec, classes: tuple[str, ...], comparison: Comparison) -> Figure:
    """Draws the accuracy of each class: a method a row, a class a column, the worst class last.

    Args:
        means: accuracies in percent, as `by_class` returns them.
        spec: which attack is the strongest.
        classes: names of the K classes; only up to 20 are written, with the numbers.
        comparison: the students drawn, and their teacher.
    """
    named, title = len(classes) <= NAMED, metric_title(spec.strongest)
    worst = means.min(axis=1)
    values = means.assign(gap=float("nan"), worst=worst).to_numpy()
    names = [*classes, "", "worst"] if named else []
    chart = charts.heat_map(values, (0, 100), SEQUENTIAL, list(means.index), names, numbers=named)
    text = "; ".join(f"{name}: worst class {value:.1f}" for name, value in worst.items())
    width = 340 if len(classes) <= 10 else 640
    axis = 20 + (7 * max(map(len, names)) if named else 0)
    panel = Panel(chart, text, width=width, height=axis + 24 * len(means), axis=axis)
    keys = [] if named else swatches((0, 25, 50, 75, 100), SEQUENTIAL)
    caption = (
        f"{title} accuracy of each class in percent, mean over the seeds; {spec.attacked}; checkpoint {spec.first}."
    )
    if not named:
        caption += " The last column is the worst class."
    return Figure(f"{comparison.label}: robust accuracy by class", caption, [panel], keys)
