"""Imports a published checkpoint as a teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robust_distillation.pipeline.import_teacher import import_to_file

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import ImportTeacher


def run(step: ImportTeacher) -> dict[str, Any]:
    """Writes the checkpoint of an imported teacher.

    Args:
        step: the job: experiment, and in `step.values` the teacher.

    Returns:
        `{"published": {...}}` for the record, the JSON file beside the checkpoint: name, sha256, URL, path, source and
        normalisation of the published file.

    Raises:
        UserError: if the published file is missing and cannot be downloaded, is broken, or does not fit.
    """
    return {"published": import_to_file(step.experiment, step.values["teacher"], step.outputs[0])}
