"""Makes the table of the tuning stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.files import read_json
from robust_distillation.reporting.tuning import write_tables

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import ReportTuning


def run(step: ReportTuning) -> None:
    """Writes the table of the tuning stage: every candidate, its accuracy on the validation split, and the choice.

    A candidate is a combination of hyperparameter values.

    Args:
        step: the job. Its inputs are the candidates.json of each tuned teacher, student and method.
    """
    write_tables([read_json(file) for file in step.inputs], step.settings, step.layout.tables)
