"""The figure of the robust accuracy of each class."""

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
    """Computes the accuracy of the teacher and of each method in each class under the strongest attack.

    An accuracy is the fraction of correct predictions over the test images of the class and all seeds. An image counts
    as correct if both the clean and the adversarial image are classified correctly.

    Args:
        outcomes: one row per trained network, checkpoint and test image, as `evaluation.outcomes.read_outcomes` returns
            them. Used columns: `teacher`, `student`, `method`, `checkpoint`, `label`, `prediction`, and the bool column
            of the strongest attack, such as `autoattack`.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are `methods` (order of the rows), the last of `metrics` (the strongest
            attack), and the first of `checkpoints`, at which students are taken.
        classes: names of the K classes, `experiment.info.classes`. Only their number is used.
        comparison: pair of the names of a teacher and a student network, such as `Comparison(teacher="wide",
            student="small")`. Used are the rows of the students of this network that were trained with this teacher or
            by a method without a teacher (`teacher` is `none`), and the rows about the teacher, whose student is `-`.

    Returns:
        Accuracies in percent. The index is `teacher`, then the names of the methods; those without rows in `outcomes`
        are left out. The columns are the labels 0 to K - 1. A class without a test image is NaN.
    """
    rows = comparison.rows(spec.at_headline(outcomes))
    means = class_accuracies(rows.assign(method=labels(rows)), spec.strongest).reindex(columns=range(len(classes)))
    return means.reindex([name for name in [TEACHER, *spec.methods] if name in means.index])


def per_class(means: pd.DataFrame, spec: TableSpec, classes: tuple[str, ...], comparison: Comparison) -> Figure:
    """Draws a heat map of the robust accuracy in each class: a row for the teacher and each method, a column for each
    class.

    One more column on the right has the lowest accuracy of the row. With more than 20 classes the map has neither names
    of columns nor numbers, but a legend of the colours.

    Args:
        means: accuracies in percent, as `reporting.figures.per_class.by_class` returns them: the index is `teacher` and
            the names of methods, the columns are the labels 0 to K - 1.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are the last of `metrics` (the strongest attack), the first of
            `checkpoints`, and the threat model, for the texts.
        classes: names of the K classes, `experiment.info.classes`, in the order of the columns.
        comparison: pair of the names of a teacher and a student network, such as `Comparison(teacher="wide",
            student="small")`. It is used for the title only.

    Returns:
        A `figures.figure.Figure` (title, caption, panels with Vega-Altair charts, legend) of one panel, for
        `figures.figure.save` or as an element of a section of the report.
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
