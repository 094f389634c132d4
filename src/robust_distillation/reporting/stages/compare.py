"""Compares every two methods on the same images and seeds, and judges the experiment's claims."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.reporting import claims

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import Compare


def run(step: Compare) -> None:
    """Writes the table of comparisons and the table of claims."""
    claims.write(step.experiment, step.evidence, step.layout.tables)
