"""Learning rate and validation as functions of the epoch, counted from 1. No torch is imported: plans call them too."""

from __future__ import annotations

from robust_distillation.settings import Training


def learning_rate(settings: Training, epoch: int) -> float:
    """Returns the learning rate in an epoch: multiplied by `factor` after each milestone."""
    passed = sum(milestone < epoch for milestone in settings.milestones)
    if settings.decay == "from_initial":
        passed = min(passed, 1)
    return settings.learning_rate * settings.factor**passed


def is_validation_epoch(settings: Training, epoch: int) -> bool:
    """Returns True if the student is evaluated after this epoch, so that it may become `best`."""
    selection = settings.selection
    every = epoch > (selection.every_epoch_after or settings.epochs)
    return every or epoch % selection.every == 0 or epoch == settings.epochs


def validation_epochs(settings: Training) -> int:
    """Counts the epochs after which the student is evaluated."""
    return sum(is_validation_epoch(settings, epoch) for epoch in range(1, settings.epochs + 1))
