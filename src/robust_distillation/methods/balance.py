"""The weight between two losses, of which the one that falls slower gains weight (MTARD, ECCV 2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Balance(nn.Module):
    """The weight w of the first of two losses, and the first value of each."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.full((), 0.5))
        self.register_buffer("first_values", torch.zeros(2))

    @torch.no_grad()
    def forward(self, one: Tensor, other: Tensor, rate: float) -> Tensor:
        """Moves w towards l_one / (l_one + l_other), where l is a loss over its first value, and returns a copy of w.

        Args:
            one: mean of the first loss over the whole batch, a tensor of no dimensions.
            other: mean of the second loss.
            rate: share of the way that w moves, in [0,1].
        """
        values = torch.stack([one, other]).to(self.first_values.dtype)
        self.first_values.copy_(torch.where(self.first_values == 0, values, self.first_values))
        one, other = values / self.first_values
        self.weight.sub_(rate * (self.weight - one / (one + other)))
        return self.weight.clone()
