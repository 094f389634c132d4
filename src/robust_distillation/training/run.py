"""One training from settings to files: checkpoints `best` and `last` and the training curves; for tuning the curves
only.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch

from robust_distillation.data.dataset import Dataset
from robust_distillation.data.views import ViewScheme
from robust_distillation.files import write_text
from robust_distillation.layout import Layout
from robust_distillation.methods import Method
from robust_distillation.models.checkpoint import build_model, save_checkpoint
from robust_distillation.models.precision import EXACT, TRAIN, configure_precision
from robust_distillation.randomness import derived_seed
from robust_distillation.resume import ResumableJob
from robust_distillation.settings import ThreatModel, Training
from robust_distillation.training.divergence import Diverged
from robust_distillation.training.loop import train
from robust_distillation.training.parallel import SYNCHRONISED, Group, synchronised
from robust_distillation.training.teacher import Teachers
from robust_distillation.training.trainer import Trainer, build_own, is_network

log = logging.getLogger(__name__)


def build_trainer(
    settings: dict[str, Any],
    training: Training,
    method: Method,
    threat: ThreatModel,
    data: Dataset,
    device: torch.device,
    teachers: Teachers = Teachers(),  # noqa: B008 (immutable)
    group: Group = Group(),  # noqa: B008 (immutable)
    precision: str = EXACT,
    compiled: bool = False,
) -> Trainer:
    """Builds the student, the method's own modules and the optimisers of one training.

    Args:
        settings: the resolved settings of the training: architecture, seed, and `devices` if several processes share
            it.
        training: budget, optimiser and inner maximisation.
        method: the method with its settings.
        threat: norm and radius of attacks.
        data: the training images.
        device: where to train.
        teachers: the teachers that the method asks; empty for a method without one.
        group: the processes that share each batch.
        precision: a value of `compute.precision`; `exact` is fp32, eager, NCHW.
        compiled: True: the networks' features are compiled by torch.compile.
    """
    seed, info = settings["seed"], data.info
    student = build_model(settings["architecture"], info.shape, len(info.classes), derived_seed(seed, "model"))
    own = build_own(method, data, student, seed, settings["architecture"], teachers.features, teachers.copies)
    for network in (student, *filter(is_network, own.values())):
        network.to(device)
        if group.size > 1 and settings["devices"]["batch_norm"] == SYNCHRONISED:
            synchronised(network)
        configure_precision(network, precision, TRAIN, compiled=compiled, recorded=group.size == 1)
    return Trainer(student, method, training, threat, seed, own.to(device), teachers.by_role, group)


def train_to_files(
    folder: Path,
    settings: dict[str, Any],
    trainer: Trainer,
    data: Dataset,
    validation: Dataset,
    scheme: ViewScheme,
    device: torch.device,
    description: dict[str, Any],
    work: ResumableJob | None = None,
) -> list[Path]:
    """Trains and writes best.safetensors, last.safetensors and metrics.jsonl; only the first process of a group writes.

    Args:
        folder: the folder of the files.
        settings: the resolved settings, as for `build_trainer`; with `description` the checkpoints' metadata.
        trainer: the networks and optimisers.
        data: the training images.
        validation: the images on which `best` is chosen.
        scheme: the views of a training image.
        device: the device of the networks.
        description: more metadata of the checkpoints.
        work: as for `train`.

    Returns:
        The paths of the files; none in processes other than the first.
    """
    info = data.info
    progress = train(trainer, data, validation, scheme, device, work)
    if trainer.group.rank:
        return []
    metadata = {
        **settings,
        "dataset": {**settings["dataset"], "shape": list(info.shape), "classes": list(info.classes)},
        "normalisation": None,  # the model takes images in [0,1] as they are
        **description,
    }
    files = list(Layout.training(folder))
    counts = progress.counts
    save_checkpoint(files[0], progress.best, {**metadata, "checkpoint": "best", "epoch": counts.best_epoch})
    last = {**metadata, "checkpoint": "last", "epoch": trainer.settings.epochs}
    save_checkpoint(files[1], trainer.student.state_dict(), last)
    _write_lines(files[2], counts.metrics)
    return files


def tune_to_file(
    folder: Path,
    trainer: Trainer,
    data: Dataset,
    validation: Dataset,
    scheme: ViewScheme,
    device: torch.device,
    work: ResumableJob | None = None,
) -> list[Path]:
    """Trains one candidate of the tuning stage and writes metrics.jsonl.

    A training that diverges is a result, not an error: the last line then has `"diverged": true`.

    Args:
        folder: the folder of the file.
        trainer: the networks and optimisers.
        data: the training images.
        validation: the images on which candidates are compared.
        scheme: the views of a training image.
        device: the device of the networks.
        work: as for `train`.

    Returns:
        The path of the file, in a list.
    """
    try:
        lines = train(trainer, data, validation, scheme, device, work).counts.metrics
    except Diverged as error:
        log.info("%s", error)
        lines = [*error.metrics, {"epoch": len(error.metrics) + 1, "diverged": True}]
    file = Layout.curves(folder)
    _write_lines(file, lines)
    return [file]


def _write_lines(file: Path, lines: list[dict[str, Any]]) -> None:
    write_text(file, "".join(json.dumps(line) + "\n" for line in lines))
