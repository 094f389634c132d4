"""Learning rate and validation as functions of the epoch, counted from 1. No torch is imported: plans call them too."""

from __future__ import annotations

from robust_distillation.settings import Training


def learning_rate(settings: Training, epoch: int) -> float:
    """Returns the learning rate in one epoch: `learning_rate` x `factor`^n, where n milestones lie before the epoch.

    A milestone m reduces the rate from epoch m + 1 on. With `decay: from_initial`, n is at most 1.

    Args:
        settings: the training settings, of which `learning_rate`, `factor`, `milestones` and `decay` are used.
        epoch: number of the epoch, counted from 1.
    """
    passed = sum(milestone < epoch for milestone in settings.milestones)
    if settings.decay == "from_initial":
        passed = min(passed, 1)
    return settings.learning_rate * settings.factor**passed


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


def validation_epochs(settings: Training) -> int:
    """Returns the number of epochs of a training after which the student is evaluated; see `is_validation_epoch`.

    Args:
        settings: the training settings, of which `selection` and `epochs` are used.
    """
    return sum(is_validation_epoch(settings, epoch) for epoch in range(1, settings.epochs + 1))
