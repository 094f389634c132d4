"""Describes a dataset by the size and the hash of each split."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation import data
from robust_distillation.files import write_json
from robust_distillation.pipeline.experiment_data import describe_dataset

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import PrepareData


def run(step: PrepareData) -> None:
    """Downloads the missing files of a dataset and writes data.json: the number of images and the hash of each split.

    `pipeline.run.run_step` calls this function for a job (one run) of the workflow step prepare-data or prepare-target.
    The content of the file is that of `pipeline.experiment_data.describe_dataset`.

    Args:
        step: the job, for the dataset of the experiment or of a transfer. `step.files` has the name of the dataset and
            the options of its files, such as their folder. The file to write is `step.outputs[0]`, for example
            results/digits/data.json.

    Raises:
        UserError: if a file is missing and may not be downloaded, cannot be downloaded, or is broken.
    """
    files = step.files
    data.registry.module(files.name).check(files.options)
    write_json(step.outputs[0], describe_dataset(files.name, files.options))
