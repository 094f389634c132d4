"""The figure of training curves: accuracy after each epoch on the images by which the checkpoint `best` is chosen."""

from __future__ import annotations

from itertools import product

import pandas as pd

from robust_distillation.columns import EPOCH, METHOD
from robust_distillation.comparison import Comparison
from robust_distillation.reporting.figures import charts
from robust_distillation.reporting.figures.figure import Figure, Panel
from robust_distillation.reporting.figures.legend import present_keys
from robust_distillation.reporting.table_spec import TableSpec

TITLES = {"robust": "Under attack", "clean": "Clean"}


def training(curves: pd.DataFrame, spec: TableSpec, comparison: Comparison) -> Figure:
    """Draws the accuracy of the students of each distillation method by epoch, under the attack of `training.selection`
    (`apgd`, `pgd10` or `pgd_trades`) and on clean images.

    The accuracies are those by which the checkpoint `best` is chosen: on the validation split, or on the test split
    under the protocol `official` (the settings of the methods' authors). Beside them stand the accuracies on 500
    training images: a method overfits if the accuracy on training images rises while that on the images of the
    selection falls. A line is the mean over the seeds. The range from the lowest to the highest seed is shaded.

    Args:
        curves: one row for each student training and epoch, as `reporting.curves.read_curves` returns them. Used
            columns: `teacher`, `student`, `method`, `epoch`, `selection_robust`, `selection_clean`, `train_robust` and
            `train_clean` (accuracies in [0, 1]; missing in epochs without a validation, which are left out).
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are `methods` (order of the legend) and `protocol`, which decides whether
            the texts name the validation or the test split.
        comparison: pair of the names of a teacher and a student network, such as `Comparison(teacher="wide",
            student="small")`. Drawn are the students of this network that were trained with this teacher or by a method
            without a teacher (`teacher` is `none`).

    Returns:
        A `figures.figure.Figure` (title, caption, panels with Vega-Altair charts, legend) of up to four panels, under
        attack and clean, on the images of the selection and on training images, with a legend of the methods, for
        `figures.figure.save` or as an element of a section of the report.
    """
    students, panels = comparison.students(curves), []
    split = "validation" if spec.protocol == "controlled" else "test"
    for images, (column, title) in product(("selection", "train"), TITLES.items()):
        column, of = f"{images}_{column}", split if images == "selection" else "training"
        if column not in students:  # trained by a version without it
            continue
        epochs = students.dropna(subset=[column]).assign(value=100 * students[column])
        frame = epochs.groupby([METHOD, EPOCH], sort=False)["value"].agg(["mean", "min", "max"]).reset_index()
        frame = frame.rename(columns={"mean": "value", "min": "low", "max": "high"})
        frame["label"] = [f"{row.method}, epoch {row.epoch}: {row.value:.1f} %" for row in frame.itertuples()]
        chart = charts.lines(frame, spec.methods, (EPOCH, "epoch"), ("value", f"{of} accuracy (%)"))
        last = frame.groupby(METHOD)["value"].last()
        text = ", ".join(f"{name} {last[name]:.1f}" for name in spec.methods if name in last)
        name = title if images == "selection" else f"{title}, training images"
        panels.append(Panel(chart, f"{name}, accuracy in percent by epoch; after the last: {text}", name))
    return Figure(
        f"{comparison.label}: training curves",
        f"Accuracy on the {split} images and on 500 training images by epoch: mean over the seeds, their range shaded.",
        panels,
        present_keys(spec.methods, students[METHOD]),
    )
