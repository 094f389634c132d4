"""Draws the figures of outcomes, training curves and accuracy against eps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from robust_distillation.evaluation.outcomes import read_outcomes
from robust_distillation.files import read_json
from robust_distillation.reporting.curves import read_curves, robustness_curves
from robust_distillation.reporting.figures.main import draw_all
from robust_distillation.reporting.table_spec import TableSpec

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import DrawFigures


def run(step: DrawFigures) -> None:
    """Draws the figures of each teacher and student from outcomes, training curves and accuracies against eps.

    Reads the outcomes of all trained networks (results/EXPERIMENT/outcomes, Parquet: one row per test image, correct or
    not), the training curves of all students (metrics.jsonl in their folders), the differences between methods
    (tables/comparisons.csv) and, if the experiment file has the entry `robustness`, accuracies against eps
    (results/EXPERIMENT/robustness, JSON). Writes
    results/EXPERIMENT/figures/TEACHER/STUDENT/NAME.{svg,png,pdf}, where NAME is overview, attacks, differences,
    training, trade-off, per-class or robustness.

    Args:
        step: the job (one run of this step), `pipeline.steps.DrawFigures(experiment)`. Used are its `experiment`,
            `inputs` (paths of the files to read), `settings` (contents and order of the figures) and `layout.figures`
            (folder of the figures).

    Raises:
        UserError: if a file of outcomes is missing or broken, or if the seeds of a method, or a student and its
            teacher, were not attacked on the same images.
    """
    experiment = step.experiment
    outcomes = read_outcomes(file for file in step.inputs if file.suffix == ".parquet")
    curves = read_curves(experiment.runs, experiment.layout)
    eps_curves = robustness_curves(read_json(file) for file in step.inputs if file.suffix == ".json")
    compared = pd.read_csv(step.inputs[0])
    draw_all(
        outcomes, curves, eps_curves, compared, TableSpec(**step.settings), experiment.info.classes,
        experiment.threat_model, step.layout.figures,
    )  # fmt: skip
