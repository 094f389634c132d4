"""Output of a network: logits and penultimate features from one forward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor, nn


class Output(NamedTuple):
    """Logits and penultimate features of a batch of B images. D is the number of features, K the number of classes.

    Attributes:
        logits: [B,K], or None if they were not requested.
        features: [B,D], the input of the last linear layer, whose output are the logits; None if they were not
            requested.
    """

    logits: Tensor | None
    features: Tensor | None = None


def output(model: nn.Module, x: Tensor) -> Output:
    """Computes logits [B,K] and features [B,D] of a batch in one forward pass.

    The mode (train or eval) and the gradients are as the caller set them.

    Args:
        model: network with a method `features` (images to penultimate features [B,D]) and a linear layer `classifier`
            (features to logits [B,K]).
        x: images [B,C,H,W], on the device of the model.

    Returns:
        The named tuple (logits, features).
    """
    features = model.features(x)
    return Output(model.classifier(features), features)
