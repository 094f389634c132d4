"""Makes the table and the figures of class correlations and feature distances."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.reporting import structure
from robust_distillation.reporting.figures.structure import draw_all
from robust_distillation.reporting.table_spec import TableSpec

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import ReportStructure


def run(step: ReportStructure) -> None:
    """Writes the table and the figures of the structure analysis: class correlations, and feature distances.

    Class correlations are the correlations between the logits of every two classes, and feature distances say how far a
    PGD-20 attack moves the features.

    Reads the measurements of all trained networks, such as
    results/digits/structure/students/wide/small/rslad/seed-0.json. Writes
    results/EXPERIMENT/tables/structure.{csv,md,tex} and, for each teacher and student, correlations.{svg,png,pdf} and
    feature-distances.{svg,png,pdf} in results/EXPERIMENT/figures/TEACHER/STUDENT.

    Args:
        step: the job (one run of this step), `pipeline.steps.ReportStructure(experiment)`. Used are its `experiment`,
            `inputs` (paths of the files to read), `settings` (contents and order of the table) and `layout`.
    """
    make_tables(step)
    structures, classes = structure.read_structures(step.inputs), step.experiment.info.classes
    draw_all(structures, TableSpec(**step.settings), classes, step.layout.figures)


def make_tables(step: ReportStructure) -> None:
    """Writes the table of the structure analysis (class correlations of logits, and feature distances) without its
    figures. The command `audit` calls it to check the table.

    Reads the measurements of all trained networks, such as
    results/digits/structure/students/wide/small/rslad/seed-0.json. Writes structure.{csv,md,tex} in the folder of
    tables.

    Args:
        step: the job (one run of this step), `pipeline.steps.ReportStructure(experiment)`. Used are its `inputs` (paths
            of the files to read), `settings` (contents and order of the table) and `layout.tables` (folder of the
            table, such as results/digits/tables).
    """
    structures = structure.read_structures(step.inputs)
    structure.write_tables(structures, TableSpec(**step.settings), step.layout.tables)
