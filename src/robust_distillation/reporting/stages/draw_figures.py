"""Draws training curves, clean against robust accuracy, and robustness by class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.evaluation.outcomes import read_outcomes
from robust_distillation.reporting.curves import read_curves
from robust_distillation.reporting.figures import draw_all
from robust_distillation.reporting.tables import Matrix

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import DrawFigures


def run(step: DrawFigures) -> None:
    """Writes the figures of each comparison."""
    experiment = step.experiment
    outcomes = read_outcomes(file for file in step.inputs if file.suffix == ".parquet")
    curves = read_curves(experiment.runs, experiment.layout)
    draw_all(outcomes, curves, Matrix(**step.settings), experiment.info.classes, step.layout.figures)
