"""Makes the table and the figures of the transfer to another dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.evaluation.outcomes import read_outcomes
from robust_distillation.reporting import transfer
from robust_distillation.reporting.figures.transfer import draw_all
from robust_distillation.reporting.table_spec import TableSpec

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import ReportTransfer


def run(step: ReportTransfer) -> None:
    """Writes the table and the figures of the accuracies on a transfer target, another dataset.

    A transferred network is a frozen network with a new linear head. Reads the outcomes of all transferred networks
    (one row per test image of the target: correct or not, without and under each attack), such as
    results/digits/transfer/parity/students/wide/small/rslad/seed-0.parquet. Writes
    results/EXPERIMENT/tables/transfer-TARGET.{csv,md,tex} and, for each teacher and student,
    results/EXPERIMENT/figures/TEACHER/STUDENT/transfer-TARGET.{svg,png,pdf}.

    Args:
        step: the job (one run of this step), such as `pipeline.steps.ReportTransfer(experiment, target="parity")`. Used
            are its `inputs` (paths of the files to read), `settings` (contents and order of the table),
            `values["target"]` and `layout`.

    Raises:
        UserError: if a file of outcomes is missing or broken, or if the seeds of a method, or a student and its
            teacher, were not attacked on the same images.
    """
    make_tables(step)
    draw_all(read_outcomes(step.inputs), _spec(step), step.values["target"], step.layout.figures)


def make_tables(step: ReportTransfer) -> None:
    """Writes the table of the accuracies on a transfer target without the figures. The command `audit` calls it to
    check the table.

    Reads the outcomes of all transferred networks (one row per test image of the target: correct or not, without and
    under each attack), such as results/digits/transfer/parity/students/wide/small/rslad/seed-0.parquet. Writes
    transfer-TARGET.{csv,md,tex} in the folder of tables.

    Args:
        step: the job (one run of this step), such as `pipeline.steps.ReportTransfer(experiment, target="parity")`. Used
            are its `inputs` (paths of the files to read), `settings` (contents and order of the table),
            `values["target"]` and `layout.tables` (folder of the table, such as results/digits/tables).

    Raises:
        UserError: if a file of outcomes is missing or broken, or if the seeds of a method, or a student and its
            teacher, were not attacked on the same images.
    """
    transfer.write_tables(read_outcomes(step.inputs), _spec(step), step.values["target"], step.layout.tables)


def _spec(step: ReportTransfer) -> TableSpec:
    settings = dict(step.settings)
    attacks = settings.pop("attacks")
    return TableSpec(**settings).transferred(attacks)
