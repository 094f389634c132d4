"""What changes from epoch to epoch; epochs are counted from 1. No torch: the plan counts with it, too."""

from __future__ import annotations

from robust_distillation.settings import Training


def learning_rate(settings: Training, epoch: int) -> float:
    """In the epoch with this number, counted from 1: multiplied by `factor` after each milestone."""
    passed = sum(milestone < epoch for milestone in settings.milestones)
    if settings.decay == "from_initial":
        passed = min(passed, 1)
    return settings.learning_rate * settings.factor**passed


def looked_at(settings: Training, epoch: int) -> bool:
    """Whether `best` may be the checkpoint after this epoch."""
    selection = settings.selection
    every = epoch > (selection.every_epoch_after or settings.epochs)
    return every or epoch % selection.every == 0 or epoch == settings.epochs


def looks(settings: Training) -> int:
    """How often that is so in the whole training."""
    return sum(looked_at(settings, epoch) for epoch in range(1, settings.epochs + 1))
