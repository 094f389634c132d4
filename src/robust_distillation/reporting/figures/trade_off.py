"""Clean accuracy against robust accuracy."""

from __future__ import annotations

import pandas as pd

from robust_distillation.columns import METHOD, METRIC, SEED
from robust_distillation.comparison import Comparison
from robust_distillation.reporting.figures import charts
from robust_distillation.reporting.figures.figure import Figure, Panel
from robust_distillation.reporting.figures.legend import TEACHER, labels, present_keys
from robust_distillation.reporting.table_spec import TableSpec, metric_title


def trade_off(values: pd.DataFrame, spec: TableSpec, comparison: Comparison) -> Figure:
    """Draws a mark per method at its clean and its robust accuracy on the test images.

    A second panel shows the robust students closer, if some student has less than half of the best one's accuracy
    under the strongest attack.

    Args:
        values: accuracies in percent per run, as `statistics.accuracies` returns them.
        spec: order of the methods, and which attack and checkpoint are the headline's.
        comparison: the students to draw, and their teacher.
    """
    robust = spec.strongest
    rows = comparison.rows(spec.at_headline(values))
    rows = rows.assign(**{METHOD: labels(rows)})
    wide = rows.pivot(index=[METHOD, SEED], columns=METRIC, values="value").reset_index()
    wide = wide.rename(columns={"clean": "x", robust: "y"})[[METHOD, SEED, "x", "y"]]
    means = wide.groupby(METHOD, sort=False)[["x", "y"]].mean().reset_index()
    several = wide.groupby(METHOD)[SEED].transform("count") > 1
    frame = pd.concat([wide[several], means.assign(**{SEED: None})], ignore_index=True)
    title = metric_title(robust)
    frame["label"] = [
        f"{row.method}{'' if pd.isna(row.seed) else f', seed {row.seed:.0f}'}: clean {row.x:.2f}, {title} {row.y:.2f}"
        for row in frame.itertuples()
    ]
    students = means[means[METHOD] != TEACHER]
    near = set(students.loc[students["y"] >= students["y"].max() / 2, METHOD])
    axes = ("x", "clean accuracy (%)"), ("y", f"{title} accuracy (%)")
    text = "; ".join(f"{row.method} {row.x:.1f} clean, {row.y:.1f} robust" for row in means.itertuples())
    closer = near < set(students[METHOD])
    panels = [Panel(charts.scatter(frame, spec.methods, *axes), f"Accuracy in percent: {text}", "All" * closer)]
    if closer:
        chart = charts.scatter(frame[frame[METHOD].isin(near)], spec.methods, *axes)
        panels.append(Panel(chart, f"The same for {', '.join(sorted(near))}", "The robust students, closer"))
    return Figure(
        f"{comparison.label}: clean against robust accuracy",
        f"{spec.attacked}; checkpoint {spec.first}. Large: mean over the seeds; small: each seed.",
        panels,
        present_keys(spec.methods, frame[METHOD]),
    )
