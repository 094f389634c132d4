"""Makes the table and the figures of how the models relate the classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.files import read_json
from robust_distillation.reporting import structure
from robust_distillation.reporting.tables import Matrix

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import ReportStructure


def run(step: ReportStructure) -> None:
    """Writes the table and draws the figures."""
    make_tables(step)
    structures, classes = [read_json(file) for file in step.inputs], step.experiment.info.classes
    structure.draw_all(structures, Matrix(**step.settings), classes, step.layout.figures)


def make_tables(step: ReportStructure) -> None:
    """Writes the table."""
    structures = [read_json(file) for file in step.inputs]
    structure.write_tables(structures, Matrix(**step.settings), step.layout.tables)
