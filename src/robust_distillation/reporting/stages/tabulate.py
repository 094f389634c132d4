"""Makes the comparison tables and the files of main accuracies from the outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.evaluation.outcomes import read_outcomes
from robust_distillation.reporting import tables
from robust_distillation.reporting.table_spec import TableSpec

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import Tabulate


def run(step: Tabulate) -> None:
    """Writes the main table, the tables under `tables` in the experiment file, and the files of main accuracies.

    Args:
        step: the job. Its inputs are the outcomes of all models.
    """
    tables.write(read_outcomes(step.inputs), TableSpec(**step.settings), step.layout)
