"""The weight between two losses, of which the one that falls slower gains weight (MTARD, ECCV 2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Balance(nn.Module):
    """Module with the weight w of the first of the two losses of MTARD; the second one has the weight 1 - w.

    Each call compares the two losses, each divided by its value in the first call, and moves w towards the one that has
    fallen less. w starts at 1/2. w (`weight`) and the values of both losses in the first call (`first_values`, [2]) are
    buffers, so they are saved with the training and get no gradient.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.full((), 0.5))
        self.register_buffer("first_values", torch.zeros(2))

    @torch.no_grad()
    def forward(self, one: Tensor, other: Tensor, rate: float) -> Tensor:
        """Updates w by the losses of one batch and returns a copy of it.

        Let l be a loss divided by its value in the first call. w becomes w + rate (l_one / (l_one + l_other) - w). The
        buffers are changed in place. No gradient flows.

        Args:
            one: mean of the first loss over the whole batch, a tensor of no dimensions.
            other: mean of the second loss over the whole batch, a tensor of no dimensions.
            rate: share of the way that w moves, in [0, 1].

        Returns:
            The new w in [0, 1], a tensor of no dimensions.
        """
        values = torch.stack([one, other]).to(self.first_values.dtype)
        self.first_values.copy_(torch.where(self.first_values == 0, values, self.first_values))
        one, other = values / self.first_values
        self.weight.sub_(rate * (self.weight - one / (one + other)))
        return self.weight.clone()
