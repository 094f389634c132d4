"""A training in a process of its own that saves its state whenever it can, and may end itself by kill -9."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import torch
from killed import signalled
from test_training import CPU, SCHEME, trainer_of

from robust_distillation.data.dataset import load
from robust_distillation.methods.table import ImageTable
from robust_distillation.models.checkpoint import weights_digest
from robust_distillation.resume import ResumableJob
from robust_distillation.training.loop import train

PRELOAD = ["killed_training"]  # takes seconds to load; a fork server loads it once


def run(method: str, folder: Path, file: Path, place: str = "", nth: int = 0) -> None:
    """Trains in 15 steps; dies at the n-th call of the function `place`, or writes digests of all results to `file`."""
    torch.set_num_threads(1)
    data = load("digits", "train").first(160)
    trainer = trainer_of(method, data)
    if place:
        signalled(place, nth, signal.SIGKILL)
    with ResumableJob(folder, {}, 0) as work:
        progress = train(trainer, data, data.first(20), SCHEME, CPU, work)
    tables = [module.values for module in trainer.own.values() if isinstance(module, ImageTable)]
    digests = [weights_digest(tensors) for tensors in (trainer.module.state_dict(), progress.best, *tables)]
    file.write_text(json.dumps([digests, progress.counts.metrics]))
