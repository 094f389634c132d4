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
    """A network with `features` and `classifier`, small enough that a step on the CPU takes almost no time. It accepts
    images of any size.
    """

    def __init__(self, channels: int, classes: int):
        """Creates the network with torch's default initialisation.

        Args:
            channels: number C of image channels.
            classes: number K of classes.
        """
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, WIDTH, 1), nn.BatchNorm2d(WIDTH), nn.ReLU())
        self.classifier = nn.Linear(WIDTH, classes)

    def features(self, x: Tensor) -> Tensor:
        """Computes features [B,WIDTH] of images `x` [B,C,H,W]."""
        return self.layers(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Computes logits [B,K] of images `x` [B,C,H,W]."""
        return self.classifier(self.features(x))


def calls_in_step(
    method: Method, training: Training, threat: ThreatModel, info: DatasetInfo, student: dict[str, Any], epoch: int
) -> Calls:
    """Counts the calls of each network in one optimisation step, by running that step on the CPU.

    The optimisation step is that of `tiny_step`.

    Args:
        method: the distillation or training method with its settings.
        training: the settings of the training. Its `inner_attack` decides how many calls an attack makes.
        threat: norm (`linf` or `l2`) and radius `eps` of the inner attack, `eps` in the pixel range [0,1], such as
            8/255.
        info: shape (C, H, W), class names and split sizes of the dataset, as `data.info` returns them.
        student: the student's architecture, `{"name": NAME, **arguments}`. It is passed to `method.networks`.
        epoch: number of the epoch of the optimisation step, counted from 1; some methods make other calls in later
            epochs.

    Returns:
        A counter with keys (group, name, kind), for example `("student", "student", "attack")`: 10. `group` is
        `student`, `teacher`, `own` (a network that the method trains besides the student) or `cache` (a stored output
        of a teacher). `name` is `student`, the name of an own network, or a role: the name under which the method calls
        a teacher, for example `teacher` or `robust`. `kind` is `train` (a call with gradients in the weights), `ask`
        (without any gradient) or `attack` (with a gradient in the images). For group `cache` it is the cached output
        that is read, `logits` or `features`.

    Raises:
        TypeError: the method calls a teacher in a way that it does not declare, or returns loss terms of a wrong form.
        UserError: a loss term is not finite.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # these tensors are so small that a second thread costs more than it computes
    try:
        trainer, step = tiny_step(method, training, threat, info, student, epoch)
        trainer.run(step)
    finally:
        torch.set_num_threads(threads)
    return step.calls


def tiny_step(
    method: Method, training: Training, threat: ThreatModel, info: DatasetInfo, student: dict[str, Any], epoch: int
) -> tuple[Trainer, BatchStep]:
    """Prepares one optimisation step on 4 random images, with tiny networks in place of the real ones.

    No data or checkpoint is read, and torch's random state is restored.

    Args:
        method: the distillation or training method with its settings.
        training: the settings of the training.
        threat: norm (`linf` or `l2`) and radius `eps` of the inner attack, `eps` in the pixel range [0,1], such as
            8/255.
        info: shape (C, H, W), class names and split sizes of the dataset, as `data.info` returns them.
        student: the student's architecture, `{"name": NAME, **arguments}`. It is passed to `method.networks`.
        epoch: number of the epoch of the optimisation step, counted from 1.

    Returns:
        (trainer, step): `trainer.run(step)` runs the step.
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
    return trainer, BatchStep(trainer, Batch(x, data.labels, ids, views, epoch, 0, 1))
