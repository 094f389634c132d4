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
    """Hashes all artefacts and records of an experiment.

    Args:
        chain: the steps of the experiment.
        layout: paths of the experiment's files.

    Returns:
        A dict that can be written as JSON:

        - `experiment`: its name.
        - `artefacts`: path to `sha256`, `md5` (DVC's name of the content) and `record` (path). A file of the cache is
          not versioned: it has no md5, and its sha256 is the one in its record.
        - `records`: path to sha256.
        - `mlflow`: name of each run in MLflow to the hash of its content.

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
