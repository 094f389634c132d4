"""Checks for a loss or weights that are not finite; the message names the step, its images and the remedy."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robust_distillation.errors import UserError
from robust_distillation.training.state import Counts

EVERY = 50  # steps between two checks of the losses: a check waits for the device
SHOWN = 8  # images of a batch that a message names
REMEDY = (
    "Lower training.learning_rate, or training.inner_attack.step_size; the state of before is kept, but belongs to "
    "these settings"
)


class Diverged(UserError):
    """Raised when a training cannot go on; `metrics` are the lines of the training curves of the epochs before."""

    def __init__(self, message: str, counts: Counts):
        super().__init__(message)
        self.metrics = counts.metrics


class Losses:
    """Losses of the last steps, kept on their device until the next check: a check waits for the device."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, Tensor, Tensor]] = []  # step, loss, index

    def add(self, loss: Tensor, index: Tensor, counts: Counts) -> None:
        """Keeps the loss of step `counts.steps`; checks all kept losses if there are `EVERY` of them.

        Args:
            loss: a tensor of no dimensions.
            index: positions in the training split of the step's images, int64 [B].
            counts: the epoch and step of the training.
        """
        self.steps.append((counts.steps, loss, index))
        if len(self.steps) == EVERY:
            self.check(counts)

    def check(self, counts: Counts) -> None:
        """Raises Diverged for the first kept loss that is not finite, and forgets all of them."""
        kept, self.steps = self.steps, []
        if not kept or torch.stack([loss for _, loss, _ in kept]).isfinite().all():
            return
        step, loss, index = next(entry for entry in kept if not entry[1].isfinite())
        images = ", ".join(map(str, index[:SHOWN].tolist()))
        more = f" and {len(index) - SHOWN} more" if len(index) > SHOWN else ""
        raise Diverged(
            f"the loss is {loss.item()} in epoch {counts.epoch}, step {step} (training images {images}{more}). "
            f"{REMEDY}",
            counts,
        )


def check_finite(model: nn.Module, counts: Counts) -> None:
    """Raises Diverged if a weight or a running statistic is not finite.

    The last step's update can make it so though the loss of that step was finite.
    """
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise Diverged(
                f"{name} of the model is not finite after epoch {counts.epoch}, step {counts.steps}. {REMEDY}", counts
            )
