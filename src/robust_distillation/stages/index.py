"""Writes the index of an experiment: the hashes of all outputs and records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.files import write_json
from robust_distillation.pipeline.index import index
from robust_distillation.pipeline.steps import steps

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import Index


def run(step: Index) -> None:
    """Writes results/EXPERIMENT/provenance.json: the hashes of all outputs and records of the experiment.

    `pipeline.run.run_step` calls this function for a job (one run) of the workflow step index. A record is the JSON
    file beside an output: its inputs, settings, code hash and hashes of the outputs. The keys of the file are those
    that `pipeline.index.index` returns.

    Args:
        step: the job. All other jobs of its experiment must be done.

    Raises:
        FileNotFoundError: if an output or a record does not exist.
    """
    write_json(step.outputs[0], index(steps(step.experiment), step.layout))
