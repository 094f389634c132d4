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

    Reads the outcomes of all trained networks (one row per test image: correct or not, without and under each attack),
    such as results/digits/outcomes/students/wide/small/rslad/seed-0.parquet. Writes
    results/EXPERIMENT/tables/main.{csv,md,tex}, one such table for each name under `tables`, and JSON files such as
    results/digits/metrics/students/wide/small/rslad.json with the clean accuracy and that under the last attack, mean
    over the seeds.

    Args:
        step: the job (one run of this step), `pipeline.steps.Tabulate(experiment)`. Used are its `inputs` (paths of the
            files to read), `settings` (contents and order of the tables) and `layout` (paths of the files to write).

    Raises:
        UserError: if a file of outcomes is missing or broken, or if the seeds of a method, or a student and its
            teacher, were not attacked on the same images.
    """
    tables.write(read_outcomes(step.inputs), TableSpec(**step.settings), step.layout)
