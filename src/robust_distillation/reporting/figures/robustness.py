"""The figure of the accuracy against eps, the size of the perturbation."""

from __future__ import annotations

import pandas as pd

from robust_distillation.columns import METHOD
from robust_distillation.comparison import Comparison
from robust_distillation.reporting.figures import charts
from robust_distillation.reporting.figures.figure import Figure, Panel
from robust_distillation.reporting.figures.legend import labels, present_keys
from robust_distillation.reporting.table_spec import TableSpec
from robust_distillation.settings import ThreatModel


def robustness(curves: pd.DataFrame, spec: TableSpec, comparison: Comparison, threat: ThreatModel) -> Figure:
    """Draws the accuracy of the teacher and of each method against eps.

    A line is the mean over the seeds. The range of the seeds is shaded.

    Args:
        curves: one row for each model and eps, as `reporting.curves.robustness_curves` returns them. Columns: teacher,
            student, method, seed, eps, value (percent).
        spec: order of the methods, and the name of the checkpoint for the caption.
        comparison: the student and the teacher. Used are the student's rows with this teacher or without one (teacher
            `none`), and the teacher's own rows (student `-`).
        threat: the threat model of the experiment. Its norm is in the title of the axis, and a dashed line is at its
            eps.

    Returns:
        A figure of one panel, with a legend of the methods.
    """
    rows = comparison.rows(curves)
    frame = rows.assign(**{METHOD: labels(rows)}).groupby([METHOD, "eps"], sort=False)["value"]
    frame = frame.agg(["mean", "min", "max"]).reset_index()
    frame = frame.rename(columns={"mean": "value", "min": "low", "max": "high"})
    frame["label"] = [f"{row.method}, eps {row.eps:.3g}: {row.value:.1f} %" for row in frame.itertuples()]
    axes = ("eps", f"eps ({threat.norm})"), ("value", "accuracy (%)")
    chart = charts.lines(frame, spec.methods, *axes, marked=threat.eps)
    last = frame[frame["eps"] == frame["eps"].max()]
    text = ", ".join(f"{row.method} {row.value:.1f}" for row in last.itertuples())
    caption = f"Checkpoint {spec.first}: mean over the seeds, their range shaded. Dashed: the eps of the threat model."
    return Figure(
        f"{comparison.label}: accuracy by eps",
        caption,
        [Panel(chart, f"Accuracy by eps; at {last['eps'].iloc[0]:.3g}: {text}")],
        present_keys(spec.methods, frame[METHOD]),
    )
