"""The figure of training curves: accuracy after each epoch on the images by which the checkpoint `best` is chosen."""

from __future__ import annotations

import pandas as pd

from robust_distillation.columns import EPOCH, METHOD
from robust_distillation.comparison import Comparison
from robust_distillation.reporting.figures import charts
from robust_distillation.reporting.figures.figure import Figure, Panel
from robust_distillation.reporting.figures.legend import present_keys
from robust_distillation.reporting.table_spec import TableSpec

TITLES = {"selection_robust": "Under attack", "selection_clean": "Clean"}


def training(curves: pd.DataFrame, spec: TableSpec, comparison: Comparison) -> Figure:
    """Draws the accuracy of each method by epoch, under attack and on clean images.

    The accuracies are those by which the checkpoint `best` is chosen: on the validation split, or on the test split
    under the protocol `official` (the settings of the methods' authors). A line is the mean over the seeds. The range
    from the lowest to the highest seed is shaded.

    Args:
        curves: one row for each student training and epoch, as `reporting.curves.read_curves` returns them. Used
            columns: `teacher`, `student`, `method`, `epoch`, `selection_robust` and `selection_clean` (accuracies in
            [0, 1]; missing in epochs without a validation, which are left out).
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` for a parsed experiment file
            `experiment`. Used are `methods` (order of the legend) and `protocol`, which decides whether the texts name
            the validation or the test split.
        comparison: names of a teacher and a student network, such as `Comparison(teacher="wide", student="small")`.
            Drawn are the students of this network that were trained with this teacher or by a method without a teacher
            (`teacher` is `none`).

    Returns:
        A figure of two panels, under attack and clean, with a legend of the methods, for `figure.save` or for a section
        of the report.
    """
    students, panels = comparison.students(curves), []
    split = "validation" if spec.protocol == "controlled" else "test"
    for column, title in TITLES.items():
        epochs = students.dropna(subset=[column]).assign(value=100 * students[column])
        frame = epochs.groupby([METHOD, EPOCH], sort=False)["value"].agg(["mean", "min", "max"]).reset_index()
        frame = frame.rename(columns={"mean": "value", "min": "low", "max": "high"})
        frame["label"] = [f"{row.method}, epoch {row.epoch}: {row.value:.1f} %" for row in frame.itertuples()]
        chart = charts.lines(frame, spec.methods, (EPOCH, "epoch"), ("value", f"{split} accuracy (%)"))
        last = frame.groupby(METHOD)["value"].last()
        text = ", ".join(f"{name} {last[name]:.1f}" for name in spec.methods if name in last)
        panels.append(Panel(chart, f"{title}, accuracy in percent by epoch; after the last: {text}", title))
    return Figure(
        f"{comparison.label}: training curves",
        f"Accuracy on the {split} images by epoch: mean over the seeds, their range shaded.",
        panels,
        present_keys(spec.methods, students[METHOD]),
    )
