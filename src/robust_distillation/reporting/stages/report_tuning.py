"""Makes the table of the tuning stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.files import read_json
from robust_distillation.reporting.tuning import write_tables

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import ReportTuning


def run(step: ReportTuning) -> None:
    """Writes the table of the tuning stage: every candidate, its accuracy on the validation split, and the choice.

    A candidate is a combination of hyperparameter values, with which a student is trained for a few epochs. Reads the
    candidates.json of each tuned teacher, student and method, such as
    results/digits/tuning/wide/small/rslad/candidates.json. Writes results/EXPERIMENT/tables/tuning.{csv,md,tex}.

    Args:
        step: the job (one run of this step), `pipeline.steps.ReportTuning(experiment)`. Used are its `inputs` (paths of
            the files to read), `settings` (texts of the caption) and `layout.tables` (folder of the table).
    """
    write_tables([read_json(file) for file in step.inputs], step.settings, step.layout.tables)
