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
    """Flip, then CropShift as in TreeLLi/DA-Alone-Improves-AT, in place of the crops of the padded image.

    s ~ U{low, ..., high - 1} rows and columns are cut off, of which c ~ U{0, ..., s} are columns. The crop lies at a
    uniform place in the image, and is put at a uniform place of a black image of the same size. On an image without
    black pixels the numbers of black rows and of black columns sum to s.

    Attributes:
        low: least s.
        high: one more than the greatest s; at most the side of the images. The default is for images of 32 pixels.
    """

    low: int = Field(0, ge=0)
    high: int = Field(11, ge=1)

    @model_validator(mode="after")
    def _some_are_between(self) -> Any:
        if self.low >= self.high:
            raise mistake(f"low: {self.low} is not below high, {self.high}, which is exclusive")
        return self

    def problem(self, shape: tuple[int, int, int]) -> str | None:
        """Returns that `high` is too large for the images, as `KEY: message`; None: the options fit.

        Args:
            shape: (C, H, W) of the images.
        """
        side = min(shape[1:])
        return f"high: {self.high} is more than the {side} pixels of a side of the images" if self.high > side else None

    def augment(self, images: Tensor, draws: Draws, info: DatasetInfo, padding: int) -> Tensor:
        """Augments a batch.

        Args:
            images: uint8 [B,C,H,W] from 0 to info.max_value, on any device; not modified.
            draws: the random numbers.
            info: pixel range and flips of the dataset.
            padding: not used.

        Returns:
            uint8 [B,C,H,W] from 0 to info.max_value, on the device of `images`.
        """
        from robust_distillation.augmentations import pixels

        return pixels.random_crop_shift(pixels.random_flip(images, draws, info), draws, self.low, self.high)
