"""Crop and flip, the default: a random crop of the zero-padded image, mirrored or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.augmentations.contract import Augmentation

if TYPE_CHECKING:
    from robust_distillation.data.info import DatasetInfo
    from robust_distillation.data.views import Views


class CropFlip(Augmentation):
    """Random crops of the image with `dataset.padding` zeros around it, mirrored with probability 1/2 if images of
    the dataset keep their class when mirrored. It has no options.
    """

    def views(self, info: DatasetInfo, padding: int, seed: int, epochs: int) -> Views:
        """Returns all crops and flips of an image, the same for every training.

        Args:
            info: flips of the dataset.
            padding: zero padding of the crops, in pixels, at least 0.
            seed: not used.
            epochs: not used.
        """
        from robust_distillation.data.views import ViewScheme

        return ViewScheme(padding, info.flips)
