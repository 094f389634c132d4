"""The figure of the accuracies after transfer to another dataset."""

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
    """Draws the robust and the clean accuracy on a transfer target, of the teacher and of each method.

    A transferred network is the frozen network with a new linear head for the classes of the target, another dataset.

    Args:
        values: accuracies of each seed on the target's test images in percent, as `statistics.accuracies.accuracies`
            returns them. Used columns: teacher, student, method, seed, checkpoint, metric, value.
        spec: order of the methods, and the metrics of the target, as `TableSpec.transferred` returns it. Students are
            shown at the checkpoint `spec.first`.
        target: name of the target, for the title.
        comparison: the student and the teacher. Used are the student's rows with this teacher or without one (teacher
            `none`), and the teacher's own rows (student `-`).

    Returns:
        A figure of two panels: accuracy under the strongest attack on the target, and on clean images. Bars are one
        standard deviation.
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
    """Draws the accuracies on a transfer target as FOLDER/TEACHER/STUDENT/transfer-TARGET.{svg,png,pdf}.

    There is one figure for every student and teacher.

    Args:
        outcomes: outcomes on the target's test images: one row for each model, checkpoint and image, as
            `evaluation.outcomes.read_outcomes` returns them.
        spec: the students and teachers (`spec.comparisons`), the order of the methods, and the metrics of the target,
            as `TableSpec.transferred` returns it.
        target: name of the target, as in the experiment file.
        folder: folder of all figures of the experiment.

    Raises:
        UserError: if the seeds of a model were not attacked on the same images.
    """
    values = accuracies(outcomes)
    for comparison in spec.comparisons:
        figure = transfer(values, spec, target, comparison)
        save(figure, folder / comparison.teacher / comparison.student / f"transfer-{target}")
