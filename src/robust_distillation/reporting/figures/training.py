"""Training curves: accuracy on the images that choose `best`, by epoch."""

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
    """Draws clean and robust accuracy by epoch, each the mean over the seeds with their range shaded.

    Args:
        curves: columns teacher, student, method, seed, epoch, selection_clean and selection_robust (fractions; missing
            in epochs without validation).
        spec: order of the methods.
        comparison: the students to draw.
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
