"""Crop and flip, the default: a random crop of the zero-padded image, mirrored or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.augmentations.contract import Augmentation

if TYPE_CHECKING:
    from robust_distillation.data.info import DatasetInfo
    from robust_distillation.data.views import Views


class CropFlip(Augmentation):
    """Crop and flip, the default augmentation: a random crop of the zero-padded image, mirrored or not.

    `dataset.padding` pixels of zeros are put on each side; the crop has the size of the image. It is mirrored with
    probability 1/2 if images of the dataset keep their class when mirrored. There are no options.
    """

    def views(self, info: DatasetInfo, padding: int, seed: int, epochs: int) -> Views:
        """Returns the object that makes all crops and flips of an image, the same for every training.

        Args:
            info: facts about the dataset, as `data.info` returns them; only `flips` is used: True if mirrored images
                keep their class.
            padding: width in pixels of the zero padding from which the crops are taken, `dataset.padding`; at least 0.
            seed: not used.
            epochs: not used.

        Returns:
            `ViewScheme(padding, info.flips)`: (2 * padding + 1)^2 views of each image, twice as many with flips.
        """
        from robust_distillation.data.views import ViewScheme

        return ViewScheme(padding, info.flips)
