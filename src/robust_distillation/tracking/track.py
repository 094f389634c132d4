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
    """Imports the runs of an experiment into MLflow, and writes results/EXPERIMENT/mlflow.json: the sha256 of each
    run's content, by its name.

    `pipeline.run.run_step` calls this function for the job of the workflow step track. Runs that the store already has
    are not imported again. The store is `MLFLOW_TRACKING_URI`, or sqlite:///mlflow.db if that environment variable is
    not set.

    Args:
        step: the job. Its `experiment`, its `layout` (paths of the experiment's files) and its only output,
            mlflow.json, are used.

    Returns:
        None if mlflow.json was written. The constant UNCHANGED (`{"unchanged": True}`) if it was up to date, so that
        the job's record (a JSON file beside it) stays as it is too.

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
