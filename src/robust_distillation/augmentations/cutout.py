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
    """Crop and flip, then a black square in each image (DeVries and Taylor, 2017).

    The centre (row, column) of the square is uniform over the pixels of the image. The square covers the rows and
    columns from centre - size // 2 to centre - size // 2 + size - 1; its part outside of the image is cut off, so that
    the black area varies.

    Attributes:
        cache: source of a teacher's outputs on augmented images: `records` (computed before the training and stored) or
            `live` (computed during the training).
        size: side of the square in pixels, at most the side of the images. The default is that of the released code of
            "Better Diffusion Models Further Improve Adversarial Training" (Wang et al., 2023), for images of 32 pixels.
    """

    size: Positive = 18

    @property
    def lengths(self) -> dict[str, int]:
        """The option `size`: the square must fit into the images."""
        return {"size": self.size}

    def augment(self, images: Tensor, draws: Draws, info: DatasetInfo, padding: int) -> Tensor:
        """Crops each image, mirrors it or not, and blackens a square.

        Args:
            images: uint8 [B,C,H,W] from 0 to `info.max_value`, on any device; not modified.
            draws: the random numbers of the batch: each call, such as `draws.uniform()`, returns a new number for every
                row, [B].
            info: facts about the dataset, as `data.info` returns them: `shape` (C,H,W), `max_value` (the pixel value
                that stands for 1.0) and `flips` (True if mirrored images keep their class).
            padding: width in pixels of the zero padding from which random crops are taken; at least 0.

        Returns:
            uint8 [B,C,H,W] from 0 to `info.max_value`, on the device of `images`.
        """
        from robust_distillation.augmentations import pixels

        images = pixels.random_crop_flip(images, draws, info, padding)
        corner = tuple(draws.integers(0, side) - self.size // 2 for side in images.shape[-2:])
        return pixels.blackened(images, corner, (self.size, self.size))
