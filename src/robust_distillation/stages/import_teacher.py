"""Imports a published checkpoint as a teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robust_distillation.pipeline.import_teacher import import_to_file

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import ImportTeacher


def run(step: ImportTeacher) -> dict[str, Any]:
    """Writes the checkpoint of an imported teacher, imported.safetensors.

    `pipeline.run.run_step` calls this function for a job (one run) of the workflow step import-teacher. The published
    file is downloaded if it is missing, may be downloaded and has a known URL.

    Args:
        step: the job. `step.values["teacher"]` is the name of the teacher in the experiment file. The file to write is
            `step.outputs[0]`, for example results/digits/teachers/wide/imported.safetensors.

    Returns:
        `{"published": {...}}` for the record, the JSON file beside the checkpoint (inputs, settings, code hash and
        hashes of the outputs): `file`, `sha256`, `url`, `path`, `source` and `normalisation` of the published file.

    Raises:
        UserError: if the published file is missing and cannot be downloaded, is broken, or does not fit.
    """
    return {"published": import_to_file(step.experiment, step.values["teacher"], step.outputs[0])}
