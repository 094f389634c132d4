"""Imports finished runs into MLflow."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from robust_distillation.files import read_json, write_json
from robust_distillation.pipeline.step import UNCHANGED
from robust_distillation.tracking.runs import import_runs

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import Track

log = logging.getLogger("robust-distillation")


def run(step: Track) -> dict[str, Any] | None:
    """Imports the runs of an experiment into MLflow, and writes the sha256 of each run's content, by its name, as JSON
    to the output.

    Runs that the store already has are not imported again.

    Args:
        step: the job, with the experiment and the paths of its files.

    Returns:
        None. UNCHANGED if the output was up to date and was not written.

    Raises:
        FileNotFoundError: a file of the experiment does not exist yet.
        UserError: the MLflow store cannot be reached.
    """
    contents, output = import_runs(step.experiment, step.layout), step.outputs[0]
    log.info("%d runs of experiment %s are in MLflow", len(contents), step.experiment.name)
    if output.is_file() and step.record.is_file() and read_json(output) == contents:
        return UNCHANGED
    write_json(output, contents)
    return None
