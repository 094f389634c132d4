"""Views that are drawn anew in every epoch: view v of an image is that of epoch v + 1 of one training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robust_distillation.augmentations.draws import Draws


@dataclass(frozen=True)
class RandomViews:
    """Views that are drawn anew in every epoch of a training; it implements `data.views.Views`.

    A view is what an augmentation makes of a training image. View v of an image is the one of epoch v + 1. It depends
    on the image, the seed, the epoch and the position of the image in the training split alone.

    Attributes:
        augment: function called with images, uint8 [B,C,H,W], and their random numbers, a `Draws`; it returns the
            augmented images, uint8 [B,C,H,W]. Each row of the result must depend on the same row of the arguments
            alone.
        settings: all that `augment` depends on, as a dict of JSON values, such as {"padding": 4, "flips": True,
            "augmentation": "Cutout", "options": {"size": 18}}.
        seed: seed of the training.
        epochs: number of epochs of the training.
    """

    augment: Callable[[Tensor, Draws], Tensor]
    settings: dict[str, Any]
    seed: int
    epochs: int

    @property
    def key(self) -> dict[str, Any]:
        """All that the views depend on besides the images: a dict of `settings`, `seed` and `epochs`."""
        return {**self.settings, "seed": self.seed, "epochs": self.epochs}

    def __len__(self) -> int:
        """Returns the number of views of an image, which is the number of epochs."""
        return self.epochs

    def epoch(self, seed: int, epoch: int, samples: int) -> Tensor:
        """Returns the number of the view of each image in one epoch, `epoch` - 1 for all.

        Args:
            seed: seed of the training; it must equal that of this object.
            epoch: number of the epoch, from 1 to `epochs`.
            samples: number of training images.

        Returns:
            View numbers int64 [samples] on the CPU.

        Raises:
            ValueError: if `seed` is another one, or if `epoch` is not from 1 to `epochs`.
        """
        if seed != self.seed or not 1 <= epoch <= self.epochs:
            raise ValueError(f"views of seed {self.seed}, epochs 1 to {self.epochs}: no seed {seed}, epoch {epoch}")
        return torch.full((samples,), epoch - 1)

    def apply(self, images: Tensor, ids: Tensor, views: Tensor) -> Tensor:
        """Augments a batch of images. The random numbers are drawn on the CPU.

        Args:
            images: uint8 [B,C,H,W], on any device.
            ids: position of each image in the training split, int64 [B] on the CPU.
            views: number of the view of each image, int64 [B] on the CPU: the number of the epoch, counted from 0.

        Returns:
            uint8 [B,C,H,W], on the device of `images`.
        """
        return self.augment(images, Draws(self.seed, views.numpy() + 1, ids.numpy()))
