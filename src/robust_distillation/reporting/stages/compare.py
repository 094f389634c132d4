"""Compares methods on the same images and seeds, and judges the experiment's claims."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.reporting import claims

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import Compare


def run(step: Compare) -> None:
    """Writes the tables `comparisons` (differences between methods) and `claims` (verdicts on claims).

    A claim is a sentence of the experiment file, such as `rslad > ard on autoattack`. A verdict is `supported`,
    `refuted` or `inconclusive`. Reads the outcomes of all trained networks (one row per test image: correct or not,
    without and under each attack), such as results/digits/outcomes/students/wide/small/rslad/seed-0.parquet. If claims
    are about them, the results of the structure analysis and of transfers are read, too. Writes
    comparisons.{csv,md,tex} and claims.{csv,md,tex} in results/EXPERIMENT/tables.

    Args:
        step: the job (one run of this step), `pipeline.steps.Compare(experiment)`. Used are its `experiment`, its
            `evidence` (paths of the files to read) and `layout.tables` (folder of the tables).

    Raises:
        UserError: if a file of outcomes is missing or broken, or if the seeds of a method, or a student and its
            teacher, were not attacked on the same images.
    """
    claims.write(step.experiment, step.evidence, step.layout.tables)
