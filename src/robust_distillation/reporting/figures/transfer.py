"""Accuracy on another task."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from robust_distillation.columns import METHOD, METRIC, SEED
from robust_distillation.comparison import Comparison
from robust_distillation.reporting.figures import charts
from robust_distillation.reporting.figures.dots import mean_and_seeds
from robust_distillation.reporting.figures.figure import Figure, Panel, save
from robust_distillation.reporting.table_spec import TableSpec, metric_title
from robust_distillation.statistics.accuracies import accuracies


def transfer(values: pd.DataFrame, spec: TableSpec, target: str, comparison: Comparison) -> Figure:
    """Draws clean and robust accuracy on the target task at the headline's checkpoint.

    Args:
        values: accuracies on the target in percent per run, as `statistics.accuracies` returns them.
        spec: order of the methods; its metrics are those of the target.
        target: name of the target.
        comparison: the students to draw, and their teacher.
    """
    rows, panels = comparison.rows(spec.at_headline(values)), []
    for metric in (spec.strongest, "clean"):
        title = metric_title(metric)
        frame = mean_and_seeds(rows[rows[METRIC].eq(metric)], title)
        panels.append(
            Panel(
                charts.dots(frame, spec.methods, "accuracy (%)"),
                "; ".join(frame.loc[frame[SEED].isna(), "label"]),
                title,
                height=charts.height_of(frame[METHOD]),
            )
        )
    caption = (
        f"Accuracy of a linear head on the frozen backbone, checkpoint {spec.first}, attacked end to end, "
        f"{spec.threat}. Large: mean over the seeds, bar: one standard deviation; small: each seed."
    )
    return Figure(f"{comparison.label}: transfer to {target}", caption, panels)


def draw_all(outcomes: pd.DataFrame, spec: TableSpec, target: str, folder: Path) -> None:
    """Draws FOLDER/TEACHER/STUDENT/transfer-TARGET.{svg,png,pdf} for every comparison.

    Args:
        outcomes: on the target's test images.
        spec: the comparisons, and the order of the methods; its metrics are the target's.
        target: name of the target.
        folder: of all figures.
    """
    values = accuracies(outcomes)
    for comparison in spec.comparisons:
        figure = transfer(values, spec, target, comparison)
        save(figure, folder / comparison.teacher / comparison.student / f"transfer-{target}")
