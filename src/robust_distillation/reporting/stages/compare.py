"""Compares every two methods on the same images and seeds, and judges the experiment's claims."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.reporting import claims

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import Compare


def run(step: Compare) -> None:
    """Writes the tables `comparisons` (differences between every two methods) and `claims` (verdicts).

    A claim is a statement of the experiment file, such as `rslad > ard on autoattack`; its verdict is supported,
    refuted or inconclusive.

    Args:
        step: the job. Its inputs are the outcomes and, if claims need them, the results of other analyses. The tables
            are written to `step.layout.tables` as CSV, Markdown and LaTeX.
    """
    claims.write(step.experiment, step.evidence, step.layout.tables)
