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
    """One view of each image for each epoch of a training: a pure function of (seed, epoch, position of the image).

    Attributes:
        augment: called with images uint8 [B,C,H,W] and their `Draws`; returns the augmented images. Each row of the
            result must depend on this row alone.
        settings: all that `augment` depends on, as JSON values.
        seed: seed of the training.
        epochs: number of epochs of the training.
    """

    augment: Callable[[Tensor, Draws], Tensor]
    settings: dict[str, Any]
    seed: int
    epochs: int

    @property
    def key(self) -> dict[str, Any]:
        """The settings of the augmentation, seed and epochs."""
        return {**self.settings, "seed": self.seed, "epochs": self.epochs}

    def __len__(self) -> int:
        """Returns the number of epochs."""
        return self.epochs

    def epoch(self, seed: int, epoch: int, samples: int) -> Tensor:
        """Returns the number of the view of each image in one epoch, `epoch` - 1 for all.

        Args:
            seed: seed of the training.
            epoch: number of the epoch, counted from 1.
            samples: number of training images.

        Returns:
            View numbers int64 [samples] on the CPU.

        Raises:
            ValueError: the views belong to another seed or to fewer epochs.
        """
        if seed != self.seed or not 1 <= epoch <= self.epochs:
            raise ValueError(f"views of seed {self.seed}, epochs 1 to {self.epochs}: no seed {seed}, epoch {epoch}")
        return torch.full((samples,), epoch - 1)

    def apply(self, images: Tensor, ids: Tensor, views: Tensor) -> Tensor:
        """Returns one view of each image. The random numbers are drawn on the CPU.

        Args:
            images: uint8 [B,C,H,W], on any device.
            ids: int64 [B], position of each image in the training split, on the CPU.
            views: int64 [B], the number of the view of each image, on the CPU.

        Returns:
            Tensor [B,C,H,W] of the same dtype, on the device of `images`.
        """
        return self.augment(images, Draws(self.seed, views.numpy() + 1, ids.numpy()))
