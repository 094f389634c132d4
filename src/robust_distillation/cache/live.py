"""The teacher as a network: asked anew for every batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robust_distillation.models.frozen import frozen
from robust_distillation.models.output import Output, output


class LiveTeacher:
    """Answers for any image. What it is asked on x' can come from nowhere else."""

    def __init__(self, model: nn.Module):
        self.model = model

    def clean(self, x: Tensor, index: Tensor, views: Tensor) -> Output:
        return self(x)

    def __call__(self, x: Tensor) -> Output:
        with frozen(self.model), torch.no_grad():
            return output(self.model, x)
