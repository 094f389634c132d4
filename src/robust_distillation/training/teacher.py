"""A teacher in a training: clean views are answered from the cache, other images by the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from robust_distillation.cache.store import CachedValues
from robust_distillation.device import to_device
from robust_distillation.models.output import Output, output


class Teacher:
    """One teacher of a training: a frozen network, cached outputs on clean views of the training images, or both.

    A view is what the augmentation makes of an image.

    Attributes:
        network: the network, in eval mode and without gradients in its weights; None if it is not loaded.
        logits: reader of the cached logits, or None.
        features: reader of the cached features, or None.
    """

    def __init__(
        self,
        network: nn.Module | None = None,
        logits: CachedValues | None = None,
        features: CachedValues | None = None,
    ):
        """Creates the teacher. The network is set to eval mode and frozen, in place.

        Args:
            network: network with `features` and `classifier`, which computes the outputs of any image; None if the
                method only reads the cache.
            logits: reader of the cached logits of clean views; None if they are not cached.
            features: reader of the cached features of clean views; None if they are not cached.
        """
        self.network = network and network.eval().requires_grad_(False)
        self.logits, self.features = logits, features

    def clean(self, x: Tensor, ids: Tensor, view_ids: Tensor) -> Output:
        """Returns the output on clean views, read from the cache. A teacher without any cache computes it by the
        network.

        Args:
            x: the views, float [B,C,H,W] in [0, 1]. A cached output is moved to their device.
            ids: positions of the images in the training split, int64 [B], on the CPU.
            view_ids: number of the view of each image, int64 [B], on the CPU.

        Returns:
            Logits [B,K] and features [B,D]. If only one of them is cached, the other is None.

        Raises:
            UserError: the cache cannot be read any more.
        """
        if self.logits is None and self.features is None:
            return self(x)
        logits = self.logits and to_device(self.logits(ids, view_ids), x.device)
        features = self.features and to_device(self.features(ids, view_ids), x.device)
        return Output(logits, features)

    def __call__(self, x: Tensor) -> Output:
        """Computes logits [B,K] and features [B,D] of images `x` [B,C,H,W] by the network; differentiable in `x`."""
        return output(self.network, x)


@dataclass(frozen=True)
class Teachers:
    """The teachers of one training, by role, the name under which the method calls a teacher, such as `robust`.

    Attributes:
        by_role: role, such as `teacher` or `robust`, to the `Teacher`: network and cached outputs.
        features: role to the width D of the teacher's features. A teacher of which the training has neither a network
            nor cached features has no entry.
        copies: role to a second network with the teacher's weights, for each teacher that the method trains further.
            Only this second network is trained.
    """

    by_role: Mapping[str, Teacher] = field(default_factory=dict)
    features: Mapping[str, int] = field(default_factory=dict)
    copies: Mapping[str, nn.Module] = field(default_factory=dict)
