"""Puts the outcomes of a model's shards together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.evaluation.outcomes import merge, write_outcomes

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import MergeOutcomes


def run(step: MergeOutcomes) -> None:
    """Writes the outcomes of all blocks."""
    write_outcomes(step.outputs[0], merge(step.inputs))
