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
    """Raised when a training cannot go on because its loss, a weight or a running statistic is not finite.

    Attributes:
        metrics: the training curves, one dict for each completed epoch, for example `{"epoch": 1, "learning_rate": 0.1,
            "loss": 2.1, ...}`.
    """

    def __init__(self, message: str, counts: Counts):
        """Creates the error.

        Args:
            message: the text of the error.
            counts: progress of the training, with the training curves `counts.metrics`, which become those of the
                error.
        """
        super().__init__(message)
        self.metrics = counts.metrics


class Losses:
    """Losses of the last optimisation steps, which are checked together every 50 of them, since each check waits for
    the GPU.

    Attributes:
        steps: for each optimisation step that is not checked yet: (number of the step in its epoch, loss, positions of
            its images in the training split).
    """

    def __init__(self) -> None:
        """Creates an empty list of losses."""
        self.steps: list[tuple[int, Tensor, Tensor]] = []  # step, loss, index

    def add(self, loss: Tensor, index: Tensor, counts: Counts) -> None:
        """Keeps the loss of one optimisation step. Checks and forgets all kept losses when there are 50 (EVERY) of
        them.

        Args:
            loss: the loss, a tensor of no dimensions on any device.
            index: positions of the images of this optimisation step in the training split, int64 [B]. An error message
                names the first 8.
            counts: progress of the training. `counts.steps` is the number of this optimisation step in its epoch,
                counted from 0.

        Raises:
            Diverged: a kept loss is not finite.
        """
        self.steps.append((counts.steps, loss, index))
        if len(self.steps) == EVERY:
            self.check(counts)

    def check(self, counts: Counts) -> None:
        """Checks all kept losses now, and forgets them.

        Args:
            counts: progress of the training. The error message names `counts.epoch`; `counts.metrics` (the training
                curves) become those of the error.

        Raises:
            Diverged: a loss is infinite or NaN. The message names the first such optimisation step, its images, and a
                remedy.
        """
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
    """Checks that all weights and buffers of a model are finite.

    An update can make weights infinite or NaN although the loss of that optimisation step was finite.

    Args:
        model: the network, which is not changed.
        counts: progress of the training. The error message names `counts.epoch` and the optimisation step;
            `counts.metrics` (the training curves) become those of the error.

    Raises:
        Diverged: a tensor of the model's state dict contains an infinity or NaN. The message names the first such
            tensor.
    """
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise Diverged(
                f"{name} of the model is not finite after epoch {counts.epoch}, step {counts.steps}. {REMEDY}", counts
            )
