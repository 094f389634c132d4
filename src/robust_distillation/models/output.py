"""Output of a network: logits and penultimate features from one forward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor, nn


class Output(NamedTuple):
    """Logits and features of a batch.

    Attributes:
        logits: [B,K], or None if they were not requested.
        features: penultimate features [B,D], or None if they were not requested. The logits are a linear function of
            them.
    """

    logits: Tensor | None
    features: Tensor | None = None


def output(model: nn.Module, x: Tensor) -> Output:
    """Computes logits [B,K] and features [B,D] of images x [B,C,H,W] in one forward pass.

    model: network with `features` and `classifier` (see `models`).
    """
    features = model.features(x)
    return Output(model.classifier(features), features)
