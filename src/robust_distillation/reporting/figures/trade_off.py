"""The figure of clean accuracy against robust accuracy."""

from __future__ import annotations

import pandas as pd

from robust_distillation.columns import METHOD, METRIC, SEED
from robust_distillation.comparison import Comparison
from robust_distillation.reporting.figures import charts
from robust_distillation.reporting.figures.figure import Figure, Panel
from robust_distillation.reporting.figures.legend import TEACHER, labels, present_keys
from robust_distillation.reporting.table_spec import TableSpec, metric_title


def trade_off(values: pd.DataFrame, spec: TableSpec, comparison: Comparison) -> Figure:
    """Draws the clean accuracy (horizontal) against the robust accuracy (vertical) of the teacher and of each method.

    Robust accuracy is that under the strongest attack. A large mark is the mean over the seeds. Small marks are the
    single seeds, for methods with several seeds.

    Args:
        values: accuracies of each seed in percent, as `statistics.accuracies.accuracies` returns them. Used columns:
            `teacher`, `student`, `method`, `seed`, `checkpoint`, `metric` (`clean` or an attack), `value`.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are `methods` (colours), the last of `metrics` (the strongest attack), and
            the first of `checkpoints`, at which students are shown.
        comparison: pair of the names of a teacher and a student network, such as `Comparison(teacher="wide",
            student="small")`. Drawn are the students of this network that were trained with this teacher or by a method
            without a teacher (`teacher` is `none`), and the teacher, whose rows have the student `-`.

    Returns:
        A `figures.figure.Figure` (title, caption, panels with Vega-Altair charts, legend) of one panel with the teacher
        and all methods, and a legend of the methods, for `figures.figure.save` or as an element of a section of the
        report. If some methods have less than half of the highest robust accuracy of a method, a second panel shows the
        other methods alone, without the teacher.
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
