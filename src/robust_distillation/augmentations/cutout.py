"""Cutout: crop and flip, then one black square (DeVries and Taylor, 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.augmentations.contract import RandomAugmentation
from robust_distillation.settings import Positive

if TYPE_CHECKING:
    from torch import Tensor

    from robust_distillation.augmentations.draws import Draws
    from robust_distillation.data.info import DatasetInfo


class Cutout(RandomAugmentation):
    """Crop and flip, then a black square whose centre is uniform over the pixels of the image.

    The part of the square outside of the image is cut off, so the black area varies. With centre c a side of `size`
    pixels reaches from c - size // 2 on.

    Attributes:
        size: side of the square in pixels, at most the side of the images. The default is that of the released code of
            "Better Diffusion Models Further Improve Adversarial Training" (Wang et al., 2023), for images of 32 pixels.
    """

    size: Positive = 18

    def problem(self, shape: tuple[int, int, int]) -> str | None:
        """Returns that the square is larger than the images, as `KEY: message`; None: the options fit.

        Args:
            shape: (C, H, W) of the images.
        """
        side = min(shape[1:])
        return f"size: {self.size} is more than the {side} pixels of a side of the images" if self.size > side else None

    def augment(self, images: Tensor, draws: Draws, info: DatasetInfo, padding: int) -> Tensor:
        """Augments a batch.

        Args:
            images: uint8 [B,C,H,W] from 0 to info.max_value, on any device; not modified.
            draws: the random numbers.
            info: pixel range and flips of the dataset.
            padding: zero padding of the random crops in pixels.

        Returns:
            uint8 [B,C,H,W] from 0 to info.max_value, on the device of `images`.
        """
        from robust_distillation.augmentations import pixels

        images = pixels.random_crop_flip(images, draws, info, padding)
        corner = tuple(draws.integers(0, side) - self.size // 2 for side in images.shape[-2:])
        return pixels.blackened(images, corner, (self.size, self.size))
