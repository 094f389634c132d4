"""Imports a published checkpoint as a teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robust_distillation.pipeline.import_teacher import import_to_file

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import ImportTeacher


def run(step: ImportTeacher) -> dict[str, Any]:
    """Writes the checkpoint; returns what the record says of the published file."""
    return {"published": import_to_file(step.experiment, step.values["teacher"], step.outputs[0])}
