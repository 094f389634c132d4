"""A teacher in a training: clean views are answered from the cache, other images by the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from robust_distillation.cache.store import CachedValues
from robust_distillation.device import to_device
from robust_distillation.models.output import Output, output


class Teacher:
    """One teacher of a training. Its network, if there is one, is frozen: in eval mode, without gradients in its
    weights.
    """

    def __init__(
        self,
        network: nn.Module | None = None,
        logits: CachedValues | None = None,
        features: CachedValues | None = None,
    ):
        """Freezes the network.

        Args:
            network: computes the outputs of any image; None if the method only reads the cache.
            logits: the cached logits of clean views, or None.
            features: the cached features of clean views, or None.
        """
        self.network = network and network.eval().requires_grad_(False)
        self.logits, self.features = logits, features

    def clean(self, x: Tensor, ids: Tensor, view_ids: Tensor) -> Output:
        """Returns the output on clean views. Without any cache the network answers.

        Args:
            x: the views, [B,C,H,W].
            ids: positions in the training split, int64 [B], on the CPU.
            view_ids: numbers of the views, int64 [B], on the CPU.
        """
        if self.logits is None and self.features is None:
            return self(x)
        logits = self.logits and to_device(self.logits(ids, view_ids), x.device)
        features = self.features and to_device(self.features(ids, view_ids), x.device)
        return Output(logits, features)

    def __call__(self, x: Tensor) -> Output:
        """Computes the output on images x [B,C,H,W]; differentiable in x if x requires a gradient."""
        return output(self.network, x)


@dataclass(frozen=True)
class Teachers:
    """The teachers of one training, by role.

    Attributes:
        by_role: what answers the method's calls.
        features: width of the cached features; no entry for a teacher whose features are not cached.
        copies: fresh networks of the teachers that are trained along.
    """

    by_role: Mapping[str, Teacher] = field(default_factory=dict)
    features: Mapping[str, int] = field(default_factory=dict)
    copies: Mapping[str, nn.Module] = field(default_factory=dict)
