"""CropShift: a crop of random size and place, put back at another place on black (Li and Spratling, 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from robust_distillation.augmentations.contract import RandomAugmentation
from robust_distillation.settings import mistake

if TYPE_CHECKING:
    from torch import Tensor

    from robust_distillation.augmentations.draws import Draws
    from robust_distillation.data.info import DatasetInfo


class CropShift(RandomAugmentation):
    """Flip, then CropShift (Li and Spratling, 2023): a random crop, put back at another place of a black image.

    The image is mirrored with probability 1/2 if mirrored images of the dataset keep their class. Then s lines are cut
    off in all, s uniform on {low, ..., high - 1}; c of them are columns, c uniform on {0, ..., s}, and s - c are rows.
    The crop of H - (s - c) rows and W - c columns lies at a uniform place in the image, and is put at a uniform place
    of a black image of the same size. It replaces the crops of the padded image. The rules are those of the authors'
    code (TreeLLi/DA-Alone-Improves-AT).

    Attributes:
        cache: source of a teacher's outputs on augmented images: `records` (computed before the training and stored) or
            `live` (computed during the training).
        low: least number s of rows and columns that are cut off, at least 0.
        high: one more than the greatest s, above `low`; at most the side of the images. The default is for images of 32
            pixels.
    """

    low: int = Field(0, ge=0)
    high: int = Field(11, ge=1)

    @model_validator(mode="after")
    def _some_are_between(self) -> Any:
        if self.low >= self.high:
            raise mistake(f"low: {self.low} is not below high, {self.high}, which is exclusive")
        return self

    @property
    def lengths(self) -> dict[str, int]:
        """The option `high`: no more lines can be cut off than an image has."""
        return {"high": self.high}

    def augment(self, images: Tensor, draws: Draws, info: DatasetInfo, padding: int) -> Tensor:
        """Mirrors each image or not, then crops and shifts it.

        Args:
            images: uint8 [B,C,H,W] from 0 to `info.max_value`, on any device; not modified.
            draws: the random numbers of the batch: each call, such as `draws.uniform()`, returns a new number for every
                row, [B].
            info: facts about the dataset, as `data.info` returns them: `shape` (C,H,W), `max_value` (the pixel value
                that stands for 1.0) and `flips` (True if mirrored images keep their class).
            padding: not used: no crops of a padded image are taken.

        Returns:
            uint8 [B,C,H,W] from 0 to `info.max_value`, on the device of `images`.
        """
        from robust_distillation.augmentations import pixels

        return pixels.random_crop_shift(pixels.random_flip(images, draws, info), draws, self.low, self.high)
