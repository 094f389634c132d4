"""Draws the figures of outcomes, training curves and accuracy against eps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.evaluation.outcomes import read_outcomes
from robust_distillation.files import read_json
from robust_distillation.reporting.curves import read_curves, robustness_curves
from robust_distillation.reporting.figures.main import draw_all
from robust_distillation.reporting.table_spec import TableSpec

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import DrawFigures


def run(step: DrawFigures) -> None:
    """Writes the figures of each student and teacher, as SVG, PNG and PDF below `step.layout.figures`.

    Args:
        step: the job. Its inputs are outcomes, training curves and accuracies against eps.
    """
    experiment = step.experiment
    outcomes = read_outcomes(file for file in step.inputs if file.suffix == ".parquet")
    curves = read_curves(experiment.runs, experiment.layout)
    eps_curves = robustness_curves(read_json(file) for file in step.inputs if file.suffix == ".json")
    draw_all(
        outcomes, curves, eps_curves, TableSpec(**step.settings), experiment.info.classes, experiment.threat_model,
        step.layout.figures,
    )  # fmt: skip
