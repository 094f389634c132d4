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
    """Draws the robust and the clean accuracy of the teacher and of each method on a transfer target, another dataset.

    A transferred network is a frozen network with a new linear head for the classes of the target.

    Args:
        values: accuracies on the target's test images: accuracies of each seed in percent, as
            `statistics.accuracies.accuracies` returns them. Used columns: `teacher`, `student`, `method`, `seed`,
            `checkpoint`, `metric` (`clean` or an attack), `value`.
        spec: contents and order of the figures, `TableSpec(**experiment.matrix()).transferred(attacks)` with
            `experiment = config.load("params.yaml")` and the names of the attacks on the target, such as `["pgd20"]`.
            Used are `methods` (order of the rows), the last of `metrics`, which is the strongest attack on the target,
            and the first of `checkpoints`, at which students are shown.
        target: name of the target, a key under `transfer` in the experiment file, such as `parity`, for the title.
        comparison: pair of the names of a teacher and a student network, such as `Comparison(teacher="wide",
            student="small")`. Drawn are the students of this network that were trained with this teacher or by a method
            without a teacher (`teacher` is `none`), and the teacher, whose rows have the student `-`.

    Returns:
        A `figures.figure.Figure` (title, caption, panels with Vega-Altair charts, legend) of two panels, accuracy under
        the strongest attack and on clean images, for `figures.figure.save` or as an element of a section of the report.
        Large marks are means over the seeds, bars are one standard deviation, and small marks are single seeds.
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
    """Draws the accuracies on a transfer target, another dataset, as
    FOLDER/TEACHER/STUDENT/transfer-TARGET.{svg,png,pdf}.

    There is one figure for every teacher and student.

    Args:
        outcomes: outcomes on the target's test images: one row per trained network (a teacher, or a student of one
            method and one seed), checkpoint and test image, as `evaluation.outcomes.read_outcomes` returns them.
            Columns: `teacher`, `student` (`-` in a row about a teacher), `method`, `seed`, `checkpoint`, `index`
            (position in the test split), `label`, `prediction` (class of the clean image), `block` (number of the batch
            of images that were attacked together), `attack_seed` (seed of the attacks on that batch), and one bool
            column per attack, such as `autoattack`: True if the clean and the adversarial image are both classified
            correctly.
        spec: contents and order of the figures, `TableSpec(**experiment.matrix()).transferred(attacks)` with
            `experiment = config.load("params.yaml")` and the names of the attacks on the target, such as `["pgd20"]`.
            Used are `comparisons` (pairs of teacher and student), and the order of methods, checkpoints and metrics.
        target: name of the target, a key under `transfer` in the experiment file, such as `parity`.
        folder: folder of all figures of the experiment, such as results/digits/figures. Missing folders are created.

    Raises:
        UserError: if the seeds of a method, or a student and its teacher, were not attacked on the same images.
    """
    values = accuracies(outcomes)
    for comparison in spec.comparisons:
        figure = transfer(values, spec, target, comparison)
        save(figure, folder / comparison.teacher / comparison.student / f"transfer-{target}")
