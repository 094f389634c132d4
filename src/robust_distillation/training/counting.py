"""Counts the calls of networks in one training step, by running the method's code on a few tensors and tiny
networks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from robust_distillation.data.dataset import Dataset
from robust_distillation.data.info import DatasetInfo
from robust_distillation.methods import Method, Sizes
from robust_distillation.randomness import generator
from robust_distillation.settings import ThreatModel, Training
from robust_distillation.training.batches import Batch
from robust_distillation.training.step import BatchStep, Calls
from robust_distillation.training.teacher import Teacher
from robust_distillation.training.trainer import Trainer

IMAGES = 4
WIDTH = 8


class Tiny(nn.Module):
    """A small network with features and a classifier, for images of any size."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, WIDTH, 1), nn.BatchNorm2d(WIDTH), nn.ReLU())
        self.classifier = nn.Linear(WIDTH, classes)

    def features(self, x: Tensor) -> Tensor:
        """Computes features [B,WIDTH] of images x."""
        return self.layers(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Computes logits [B,K] of images x."""
        return self.classifier(self.features(x))


def calls_in_step(
    method: Method, training: Training, threat: ThreatModel, info: DatasetInfo, student: dict[str, Any], epoch: int
) -> Calls:
    """Counts the calls in one training step.

    Args:
        method: the method with its settings.
        training: the settings of the training, of which the inner maximisation matters.
        threat: norm and radius of the inner maximisation.
        info: shape and classes of the images.
        student: the student's architecture.
        epoch: the epoch of the step, counted from 1.

    Returns:
        (group, name, kind) -> number of calls. group: `student`, `teacher`, `own` or `cache`; name: `student`, a role,
        or the name of an own network. kind: `train`, `ask` for a call without gradient, `attack` for a call with a
        gradient in the images, and for `cache` the kind of output.
    """
    channels, classes = info.shape[0], len(info.classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        labels = torch.arange(IMAGES) % classes
        data = Dataset(torch.zeros(IMAGES, *info.shape, dtype=torch.uint8), labels, info)
        declared = method.teachers()
        own = nn.ModuleDict({name: Tiny(channels, classes) for name in method.networks(student)})
        own.update({role: Tiny(channels, classes) for role, calls in declared.items() if calls.trained})
        sizes = Sizes(IMAGES, classes, labels, info.shape, WIDTH, dict.fromkeys(declared, WIDTH))
        own.update(method.build(sizes, generator(0, "state")))
        teachers = {role: Teacher(Tiny(channels, classes)) for role in declared}
        trainer = Trainer(Tiny(channels, classes), method, training, threat, 0, own, teachers)
        trainer.begin_epoch(epoch)
        x = torch.rand(IMAGES, *info.shape, generator=generator(0, "images"))
    ids, views = torch.arange(IMAGES), torch.zeros(IMAGES, dtype=torch.int64)
    step = BatchStep(trainer, Batch(x, data.labels, ids, views, epoch, 0))
    step.evaluate()
    return step.calls
