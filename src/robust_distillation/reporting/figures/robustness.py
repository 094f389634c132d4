"""Accuracy against the size of the perturbation."""

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
    """Draws the accuracy of every method by eps: the mean over the seeds with their range shaded.

    Args:
        curves: a row per run and eps: teacher, student, method, seed, eps, value (percent).
        spec: order of the methods, and which checkpoint is the headline's.
        comparison: the students to draw, and their teacher.
        threat: the threat model, whose eps is marked by a dashed line.
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
