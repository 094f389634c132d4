"""The index of an experiment, written last: every artefact and every record with their hashes. dvc.lock holds the
index's own hash, so that what is in it cannot be changed unseen once that is committed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from robust_distillation.files import md5, read_json, sha256
from robust_distillation.layout import Layout
from robust_distillation.pipeline.step import Step


def index(chain: Iterable[Step], layout: Layout) -> dict[str, Any]:
    """artefacts: file to its sha256, its md5 (as DVC names it) and its record; records: file to sha256; mlflow: run
    name to the content that was imported. Of the cache, which is not versioned, the hashes are those in its record."""
    artefacts: dict[str, dict[str, str]] = {}
    records: dict[str, str] = {}
    for step in chain:
        records[str(step.record)] = sha256(step.record)
        made = read_json(step.record)["outputs"] if step.rebuildable else {}
        for file in step.outputs:
            known = {"sha256": made[str(file)]} if step.rebuildable else {"sha256": sha256(file), "md5": md5(file)}
            artefacts[str(file)] = {**known, "record": str(step.record)}
    return {
        "experiment": layout.experiment,
        "artefacts": artefacts,
        "records": records,
        "mlflow": read_json(layout.tracked),
    }
