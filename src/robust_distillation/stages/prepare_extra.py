"""Describes the extra training images by their number and hash."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.files import write_json
from robust_distillation.pipeline.training_data import describe_extra

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import PrepareExtra


def run(step: PrepareExtra) -> None:
    """Writes results/EXPERIMENT/extra/data.json: number, hash and classes of the extra training images.

    `pipeline.run.run_step` calls this function for the workflow step prepare-extra.

    Args:
        step: the job. The file to write is `step.outputs[0]`.

    Raises:
        UserError: if the images are missing, are broken or do not fit the dataset. Nothing is written.
    """
    write_json(step.outputs[0], describe_extra(step.experiment))
