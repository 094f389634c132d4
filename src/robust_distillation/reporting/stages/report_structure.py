"""Makes the table and the figures of class correlations and feature distances."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.reporting import structure
from robust_distillation.reporting.figures.structure import draw_all
from robust_distillation.reporting.table_spec import TableSpec

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import ReportStructure


def run(step: ReportStructure) -> None:
    """Writes the table and the figures of class correlations and feature distances.

    Args:
        step: the job. Its inputs are the measurements of all models.
    """
    make_tables(step)
    structures, classes = structure.read_structures(step.inputs), step.experiment.info.classes
    draw_all(structures, TableSpec(**step.settings), classes, step.layout.figures)


def make_tables(step: ReportStructure) -> None:
    """Writes the table of class correlations and feature distances only, as CSV, Markdown and LaTeX.

    Args:
        step: the job. The tables are written to `step.layout.tables`.
    """
    structures = structure.read_structures(step.inputs)
    structure.write_tables(structures, TableSpec(**step.settings), step.layout.tables)
