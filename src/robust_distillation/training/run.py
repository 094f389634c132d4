"""One training from settings to files: best and last checkpoint, and the curves."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch

from robust_distillation.config import ThreatModel, Training
from robust_distillation.data.dataset import Dataset
from robust_distillation.data.views import ViewScheme
from robust_distillation.files import write_text
from robust_distillation.methods import Method
from robust_distillation.models.checkpoint import build_model, save_checkpoint
from robust_distillation.randomness import derived_seed
from robust_distillation.training.loop import Teacher, Trainer, method_state, train

log = logging.getLogger(__name__)


def train_to_files(
    folder: Path,
    settings: dict[str, Any],
    training: Training,
    method: Method,
    threat: ThreatModel,
    data: Dataset,
    validation: Dataset,
    scheme: ViewScheme,
    device: torch.device,
    description: dict[str, Any],
    teacher: Teacher | None = None,
    teacher_features: int = 0,
) -> list[Path]:
    """Writes best.safetensors, last.safetensors and metrics.jsonl into `folder` and returns their paths.

    settings: the resolved settings of this training; with `description` they become the checkpoints' metadata.
    """
    seed, info = settings["seed"], data.info
    model = build_model(settings["architecture"], info.shape, len(info.classes), derived_seed(seed, "model")).to(device)
    state = method_state(method, data, model, teacher_features, seed)
    trainer = Trainer(model, method, training, threat, seed, state and state.to(device), teacher)
    trained = train(trainer, data, validation, scheme, device, on_epoch=lambda line: log.info("%s", json.dumps(line)))
    metadata = {
        **settings,
        "dataset": {**settings["dataset"], "shape": list(info.shape), "classes": list(info.classes)},
        "normalisation": None,  # the model takes images in [0,1] as they are
        **description,
    }
    files = [folder / "best.safetensors", folder / "last.safetensors", folder / "metrics.jsonl"]
    save_checkpoint(files[0], trained.best, {**metadata, "checkpoint": "best", "epoch": trained.best_epoch})
    save_checkpoint(files[1], trained.last, {**metadata, "checkpoint": "last", "epoch": trained.last_epoch})
    write_text(files[2], "".join(json.dumps(line) + "\n" for line in trained.metrics))
    return files
