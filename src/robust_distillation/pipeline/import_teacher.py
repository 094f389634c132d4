"""Somebody's published weights as a checkpoint of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robust_distillation.config import Experiment
from robust_distillation.files import read_json, sha256
from robust_distillation.layout import Layout
from robust_distillation.models.checkpoint import save_checkpoint
from robust_distillation.pipeline import importing
from robust_distillation.reference import checkpoints


def import_to_file(experiment: Experiment, name: str, output: Path) -> dict[str, Any]:
    """Writes the checkpoint of an imported teacher; returns what the record says of the published file."""
    teacher, info = experiment.teachers[name], experiment.info
    chosen, architecture = teacher.imported, teacher.architecture
    download = experiment.dataset.download
    if chosen.source == checkpoints.ROBUSTBENCH:
        zoo = chosen.model, experiment.dataset.name, experiment.threat_model.norm
        state, _ = importing.import_robustbench(*zoo, chosen.sha256, download)
        normalisation = None  # a part of these models
        file = importing.robustbench_file(*zoo)
        published = {"file": file.name, "sha256": sha256(file), "url": None}
    else:
        source = checkpoints.SOURCES.get(chosen.source)  # none for a file of one's own
        own = chosen.normalisation or (source and source.normalisation)
        normalisation = None if own in (None, "none") else checkpoints.NORMALISATIONS[own]
        state, digest = importing.import_state(
            chosen.source,
            chosen.file,
            chosen.sha256,
            architecture,
            info.shape,
            len(info.classes),
            download,
            normalisation,
        )
        file = importing.locate(chosen.source, chosen.file)
        published = {"file": file.name, "sha256": digest, "url": source and source.url}
    settings = experiment.teacher_settings(name)
    settings["imported"].pop("file")  # where it lay on this machine is for the record, not for the checkpoint
    metadata = {
        **settings,
        "dataset": {**experiment.data_settings(), "shape": list(info.shape), "classes": list(info.classes)},
        "normalisation": normalisation,
        "threat_model": experiment.threat_model.model_dump(),
        "role": "teacher",
        "checkpoint": "imported",
        "published": published,
        "hashes": {"test_images": read_json(Layout(experiment.name).data)["splits"]["test"]["sha256"]},
    }
    save_checkpoint(output, state, metadata)
    return {**published, "path": str(file), "source": chosen.source, "normalisation": normalisation}
