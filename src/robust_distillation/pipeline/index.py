"""Makes the index of an experiment: the hashes of all its artefacts and records.

The index is written last. dvc.lock holds its hash, so no artefact or record can change unnoticed once dvc.lock is
committed. A record is the JSON file beside an artefact with its inputs, hashes, code fingerprint and settings.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from robust_distillation.files import md5, read_json, sha256
from robust_distillation.layout import Layout
from robust_distillation.pipeline.step import Step


def index(chain: Iterable[Step], layout: Layout) -> dict[str, Any]:
    """Returns the index of an experiment: the hashes of all outputs and records, by which a change of any of them is
    noticed.

    A record is the JSON file beside an output: its inputs, settings, code hash and hashes of the outputs.

    Args:
        chain: the jobs of the experiment (a job is one run of a step, such as the training of one student) without the
            one that writes the index, `pipeline.steps.steps(experiment)`. All their outputs must exist, except the
            cached outputs of teachers.
        layout: object that gives the paths of the experiment's files, `experiment.layout`. The file mlflow.json is
            read.

    Returns:
        A dict that can be written as JSON, the content of results/EXPERIMENT/provenance.json:

        - `experiment`: name of the experiment.
        - `artefacts`: path of each output to `{"sha256": ..., "md5": ..., "record": PATH}`. The md5 is DVC's name of
          the content. A cached output of a teacher is not versioned: it has no md5, and its sha256 is copied from its
          record.
        - `records`: path of each record to its sha256.
        - `mlflow`: name of each run in MLflow, for example `wide/small/rslad/seed-0`, to the hash of its content.

    Raises:
        FileNotFoundError: if a file does not exist.
    """
    artefacts: dict[str, dict[str, str]] = {}
    records: dict[str, str] = {}
    for step in chain:
        records[str(step.record)] = sha256(step.record)
        recorded = read_json(step.record)["outputs"] if step.rebuildable else {}
        for file in step.outputs:
            hashes = {"sha256": recorded[str(file)]} if step.rebuildable else {"sha256": sha256(file), "md5": md5(file)}
            artefacts[str(file)] = {**hashes, "record": str(step.record)}
    return {
        "experiment": layout.experiment,
        "artefacts": artefacts,
        "records": records,
        "mlflow": read_json(layout.tracked),
    }
