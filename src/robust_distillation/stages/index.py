"""Writes the index of an experiment: all artefacts and records with their hashes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.files import write_json
from robust_distillation.pipeline.index import index
from robust_distillation.pipeline.steps import steps

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import Index


def run(step: Index) -> None:
    """Writes the index."""
    write_json(step.outputs[0], index(steps(step.experiment), step.layout))
