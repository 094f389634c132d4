"""Merges the outcomes of the jobs that shared the attacks on one model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.evaluation.outcomes import merge, write_outcomes

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import MergeOutcomes


def run(step: MergeOutcomes) -> None:
    """Writes the outcomes of a model (Parquet), merged from the outcomes of the jobs that shared its attacks.

    Args:
        step: the job. Its inputs are the outcomes of all shards.

    Raises:
        UserError: if a file cannot be read, or if an image is missing or occurs twice.
    """
    write_outcomes(step.outputs[0], merge(step.inputs))
