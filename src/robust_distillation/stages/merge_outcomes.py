"""Merges the outcomes of the jobs that shared the attacks on one model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.evaluation.outcomes import merge, write_outcomes

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import MergeOutcomes


def run(step: MergeOutcomes) -> None:
    """Writes the outcomes of a model (Parquet), merged from the outcomes of the jobs that shared its attacks.

    `pipeline.run.run_step` calls this function for a job (one run) of the workflow step merge-outcomes. Outcomes have
    one row per test image and checkpoint, and state for each attack whether the image is classified correctly.

    Args:
        step: the job. `step.inputs` are the outcomes of all parts, for example
            results/digits/outcomes/teachers/wide/1-of-3.parquet. The file to write is `step.outputs[0]`, for example
            results/digits/outcomes/teachers/wide.parquet.

    Raises:
        UserError: if a file cannot be read, or if an image is missing or occurs twice.
    """
    write_outcomes(step.outputs[0], merge(step.inputs))
