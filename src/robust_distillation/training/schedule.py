"""Learning rate and validation as functions of epoch and step. No torch is imported: plans call them too."""

from __future__ import annotations

import math

from robust_distillation.settings import Training

CURVE_IMAGES = 500  # first images of the training split, whose accuracy is measured at each validation too


def learning_rate(settings: Training, epoch: int, number: int = 0, steps: int = 1) -> float:
    """Returns the learning rate of one optimisation step: `settings.learning_rate` x `training.schedule.factor`.

    Args:
        settings: the training settings, of which `learning_rate`, `epochs`, `schedule`, `milestones`, `factor` and
            `decay` are used.
        epoch: number of the epoch, counted from 1.
        number: number of the optimisation step in its epoch, counted from 0.
        steps: number of optimisation steps of an epoch.
    """
    return settings.learning_rate * factor(settings, epoch, number, steps)


def factor(settings: Training, epoch: int, number: int = 0, steps: int = 1) -> float:
    """Returns the factor of the learning rate in one optimisation step, in [0, 1].

    `settings.schedule` decides it: falling at milestones (`multistep`), along a half cosine (`cosine`) or rising and
    falling (`cyclic`), multiplied by a rising line during the warm-up.

    Args:
        settings: the training settings, of which `epochs`, `schedule`, `milestones`, `factor` and `decay` are used.
        epoch: number of the epoch, counted from 1.
        number: number of the optimisation step in its epoch, counted from 0.
        steps: number of optimisation steps of an epoch.
    """
    schedule = settings.schedule
    done = (epoch - 1) * steps + number  # steps before this one
    warm = min(1.0, (done + 1) / (schedule.warmup * steps)) if schedule.warmup else 1.0
    if schedule.name == "multistep":
        return warm * _multistep(settings, epoch)
    time, whole = (done, settings.epochs * steps) if schedule.per == "step" else (epoch - 1, settings.epochs)
    if schedule.name == "cosine":
        return warm * _between(1.0, schedule.end, time / whole, "cos")
    top, last = schedule.peak * whole - 1, whole - 1  # as OneCycleLR: the last step has the factor `end`
    if time <= top or last <= top:
        return warm * _between(schedule.start, 1.0, time / top if top > 0 else 1.0, schedule.anneal)
    return warm * _between(1.0, schedule.end, (time - top) / (last - top), schedule.anneal)


def steps_per_epoch(settings: Training, images: int) -> int:
    """Returns the number of optimisation steps (batches) of an epoch.

    Args:
        settings: the training settings, of which `batch_size` and `drop_last` are used.
        images: number of training images, without extra ones: these take places in the batches, but add none.
    """
    return images // settings.batch_size if settings.drop_last else -(-images // settings.batch_size)


def _multistep(settings: Training, epoch: int) -> float:
    """Returns `factor`^n, where n milestones lie before the epoch; with `decay: from_initial`, n is at most 1."""
    passed = sum(milestone < epoch for milestone in settings.milestones)
    if settings.decay == "from_initial":
        passed = min(passed, 1)
    return settings.factor**passed


def _between(first: float, last: float, part: float, anneal: str) -> float:
    """Returns the value between `first` (part 0) and `last` (part 1) along a line or a half cosine."""
    weight = part if anneal == "linear" else (1 - math.cos(math.pi * part)) / 2
    return first + (last - first) * weight


def is_validation_epoch(settings: Training, epoch: int) -> bool:
    """Returns True if the student is evaluated after an epoch, so that this epoch may become `best`.

    It is evaluated after every `selection.every` epochs, after every epoch later than `selection.every_epoch_after`
    (None: there is no such epoch), and after the last epoch.

    Args:
        settings: the training settings, of which `selection` and `epochs` are used.
        epoch: number of the epoch, counted from 1.
    """
    selection = settings.selection
    every = epoch > (selection.every_epoch_after or settings.epochs)
    return every or epoch % selection.every == 0 or epoch == settings.epochs


def validation_epochs(settings: Training, after: int = 0) -> int:
    """Returns the number of epochs of a training after which the student is evaluated.

    They are every `selection.every`-th epoch, every epoch later than `selection.every_epoch_after` (None: there is no
    such epoch), and the last epoch.

    Args:
        settings: the training settings, of which `selection` and `epochs` are used.
        after: number of epochs at the beginning that are not counted.
    """
    return sum(is_validation_epoch(settings, epoch) for epoch in range(after + 1, settings.epochs + 1))
