"""The step import-teacher: conversion of a published teacher to a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robust_distillation.config import Experiment
from robust_distillation.files import read_json, sha256
from robust_distillation.models.checkpoint import save_checkpoint
from robust_distillation.pipeline import importing
from robust_distillation.reference import checkpoints


def import_to_file(experiment: Experiment, name: str, output: Path) -> dict[str, Any]:
    """Imports the published weights of a teacher and writes them as a checkpoint.

    Downloads the published file if it is missing, may be downloaded and has a known URL. Reads the hash of the test
    images from results/EXPERIMENT/data.json, for the metadata of the checkpoint.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        name: name of a teacher whose entry in the experiment file has `imported`, for example `wrn-34-10`.
        output: path of the checkpoint to write, results/EXPERIMENT/teachers/`name`/imported.safetensors.

    Returns:
        Information about the published file, for the record (the JSON file beside the checkpoint: its inputs, settings,
        code hash and hashes of the outputs): `file` (its name), `sha256`, `url` (or None), `path` (as text), `source`
        (the name in the experiment file, for example `trades_wrn_34_10`) and `normalisation` (`{"mean": [...], "std":
        [...]}`, or None).

    Raises:
        UserError: if the file is missing and cannot be downloaded, if its hash is wrong, if it is broken, or if its
            tensors do not fit the teacher's architecture.
        FileNotFoundError: if data.json is missing.
    """
    teacher, info = experiment.teachers[name], experiment.info
    settings, architecture = teacher.imported, teacher.architecture
    download = experiment.dataset.download
    if settings.source == checkpoints.ROBUSTBENCH:
        zoo = settings.model, experiment.dataset.name, experiment.threat_model.norm
        state, _ = importing.import_robustbench(*zoo, settings.sha256, download)
        normalisation = None  # RobustBench models normalise inside
        file = importing.robustbench_file(*zoo)
        published = {"file": file.name, "sha256": sha256(file), "url": None}
    else:
        source = checkpoints.SOURCES.get(settings.source)  # None for your own file
        preset = settings.normalisation or (source and source.normalisation)
        normalisation = None if preset in (None, "none") else checkpoints.NORMALISATIONS[preset]
        state, digest = importing.import_state(
            settings.source,
            settings.file,
            settings.sha256,
            architecture,
            info.shape,
            len(info.classes),
            download,
            normalisation,
        )
        file = importing.locate(settings.source, settings.file)
        published = {"file": file.name, "sha256": digest, "url": source and source.url}
    teacher_settings = experiment.teacher_settings(name)
    teacher_settings["imported"].pop("file")  # a path of this machine belongs in the record, not in the checkpoint
    metadata = {
        **teacher_settings,
        "dataset": {**experiment.data_settings(), "shape": list(info.shape), "classes": list(info.classes)},
        "normalisation": normalisation,
        "threat_model": experiment.threat_model.model_dump(),
        "role": "teacher",
        "checkpoint": "imported",
        "published": published,
        "hashes": {"test_images": read_json(experiment.layout.data)["splits"]["test"]["sha256"]},
    }
    save_checkpoint(output, state, metadata)
    return {**published, "path": str(file), "source": settings.source, "normalisation": normalisation}
