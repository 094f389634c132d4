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
    """Writes the table and the figures of the accuracies on another dataset.

    Args:
        step: the job. Its inputs are the outcomes of all models on the target's test images.
    """
    make_tables(step)
    draw_all(read_outcomes(step.inputs), _spec(step), step.values["target"], step.layout.figures)


def make_tables(step: ReportTransfer) -> None:
    """Writes the table of the accuracies on another dataset only, as CSV, Markdown and LaTeX.

    Args:
        step: the job. The tables are written to `step.layout.tables`.
    """
    transfer.write_tables(read_outcomes(step.inputs), _spec(step), step.values["target"], step.layout.tables)


def _spec(step: ReportTransfer) -> TableSpec:
    settings = dict(step.settings)
    attacks = settings.pop("attacks")
    return TableSpec(**settings).transferred(attacks)
