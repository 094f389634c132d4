"""What a network answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor, nn


class Output(NamedTuple):
    """Logits [B,K], and the penultimate features [B,D] they are a linear function of."""

    logits: Tensor | None
    features: Tensor | None = None


def output(model: nn.Module, x: Tensor) -> Output:
    """Both from one forward pass."""
    features = model.features(x)
    return Output(model.classifier(features), features)
