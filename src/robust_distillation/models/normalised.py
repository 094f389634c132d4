"""Input normalisation as a part of the model: every model takes images in [0,1], the box that attacks stay in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalised(nn.Module):
    """`model` on (x - mean) / std, for images x [N,C,H,W] in [0,1].

    mean, std: C numbers each, in units of x. They are buffers that no state dict holds: they belong to a checkpoint's
    metadata, and its tensors to `model`.
    """

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    @property
    def foldable(self) -> bool:
        return getattr(self.model, "foldable", False)

    @property
    def classifier(self) -> nn.Linear:
        return self.model.classifier

    def features(self, x: Tensor) -> Tensor:
        return self.model.features((x - self.mean) / self.std)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))
