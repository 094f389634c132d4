"""Input normalisation inside the model, so that every model takes images in [0,1], the range attacks are clipped to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalised(nn.Module):
    """Wrapper that applies a model to (x - mean) / std, for images x [N,C,H,W] in [0, 1].

    So attacks can perturb images in [0, 1] whatever normalisation the weights expect.

    Attributes:
        model: the wrapped model.
        mean, std: buffers [C,1,1]. They move with the module to another device, but are not in its state dict. A
            checkpoint stores them in its metadata.
    """

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]):
        """Wraps a model.

        Args:
            model: network with `features` and `classifier` that expects normalised images.
            mean: C numbers, one for each channel, for images in [0, 1].
            std: C numbers, one for each channel, for images in [0, 1].
        """
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    @property
    def foldable(self) -> bool:
        """True if batch norm of the wrapped model may be folded into its convolutions (see `models`)."""
        return getattr(self.model, "foldable", False)

    @property
    def classifier(self) -> nn.Linear:
        """The last linear layer of the wrapped model."""
        return self.model.classifier

    def features(self, x: Tensor) -> Tensor:
        """Computes the wrapped model's features [N,D] of images `x` [N,C,H,W] in [0, 1]."""
        return self.model.features((x - self.mean) / self.std)

    def forward(self, x: Tensor) -> Tensor:
        """Computes logits [N,K] of images `x` [N,C,H,W] in [0, 1]."""
        return self.classifier(self.features(x))
