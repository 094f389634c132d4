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
    """Draws the accuracy of the teacher and of each distillation method against eps, the size of the perturbation in
    the pixel range [0, 1].

    A line is the mean over the seeds. The range from the lowest to the highest seed is shaded.

    Args:
        curves: one row for each network and eps, as `reporting.curves.robustness_curves` returns them. Columns:
            `teacher`, `student`, `method`, `seed`, `eps` and `value` (accuracy in percent).
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are `methods` (order of the legend), and the first of `checkpoints` (for
            the caption).
        comparison: pair of the names of a teacher and a student network, such as `Comparison(teacher="wide",
            student="small")`. Drawn are the students of this network that were trained with this teacher or by a method
            without a teacher (`teacher` is `none`), and the teacher, whose rows have the student `-`.
        threat: the threat model of the experiment, `experiment.threat_model`. Its `norm` (`linf` or `l2`) is in the
            title of the axis, and a dashed line is at its `eps`.

    Returns:
        A `figures.figure.Figure` (title, caption, panels with Vega-Altair charts, legend) of one panel, with a legend
        of the methods, for `figures.figure.save` or as an element of a section of the report.
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
