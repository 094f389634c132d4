"""A loss or weights that are not finite: said with the step, its images and what to do."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robust_distillation.errors import UserError
from robust_distillation.training.state import Counts

EVERY = 50  # steps between two looks at the losses: a look waits for the device
SHOWN = 8  # images of a batch that a message names
REMEDY = (
    "Lower training.learning_rate, or training.inner_attack.step_size; the state of before is kept, but belongs to "
    "these settings"
)


class Diverged(UserError):
    """The training cannot go on; `metrics` are the lines of the epochs before."""

    def __init__(self, message: str, counts: Counts):
        super().__init__(message)
        self.metrics = counts.metrics


class Losses:
    """Those of the last steps, left on their device until they are looked at."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, Tensor, Tensor]] = []  # step, loss, index

    def add(self, loss: Tensor, index: Tensor, counts: Counts) -> None:
        """That of step `counts.steps`, on the training images `index` [B]."""
        self.steps.append((counts.steps, loss, index))
        if len(self.steps) == EVERY:
            self.check(counts)

    def check(self, counts: Counts) -> None:
        """Raises Diverged if one is not finite, naming the first."""
        looked, self.steps = self.steps, []
        if not looked or torch.stack([loss for _, loss, _ in looked]).isfinite().all():
            return
        step, loss, index = next(entry for entry in looked if not entry[1].isfinite())
        images = ", ".join(map(str, index[:SHOWN].tolist()))
        more = f" and {len(index) - SHOWN} more" if len(index) > SHOWN else ""
        raise Diverged(
            f"the loss is {loss.item()} in epoch {counts.epoch}, step {step} (training images {images}{more}). "
            f"{REMEDY}",
            counts,
        )


def check_finite(model: nn.Module, counts: Counts) -> None:
    """Raises Diverged where a weight or a statistic is not finite: the last step's update may be so, though its loss
    was not."""
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise Diverged(
                f"{name} of the model is not finite after epoch {counts.epoch}, step {counts.steps}. {REMEDY}", counts
            )
