"""Describes a dataset: its splits with their hashes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation import data
from robust_distillation.files import write_json
from robust_distillation.pipeline.experiment_data import describe_dataset

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import PrepareData


def run(step: PrepareData) -> None:
    """Writes the description. Raises UserError if files are missing and may not be fetched."""
    files = step.files
    data.registry.module(files.name).check(files.options)
    write_json(step.outputs[0], describe_dataset(files.name, files.options))
