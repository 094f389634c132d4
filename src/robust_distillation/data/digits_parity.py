"""Even or odd: the images and splits of `digits` with two classes, as a second task on the same images."""

from __future__ import annotations

from dataclasses import replace

from robust_distillation.data import digits
from robust_distillation.data.info import DataOptions, DatasetInfo

check, fetch = digits.check, digits.fetch


def info(options: DataOptions) -> DatasetInfo:
    """Returns image shape, classes and split sizes of the digits with the two classes even and odd.

    Args:
        options: a DataOptions; only `size` is used: the side in pixels to which images are resized, None to keep their
            size.

    Returns:
        A DatasetInfo. Shape (1,H,W), the classes `even` and `odd`, 1,000 training, 297 validation and 500 test images,
        and the largest pixel value, 16. H and W are `options.size`, or 8 if it is None.
    """
    return replace(digits.info(options), classes=("even", "odd"))


def read(split: str, options: DataOptions):
    """Reads one split of the digits, with the two classes even and odd.

    Args:
        split: "train", "validation" or "test".
        options: a DataOptions; only `size` is used: the side in pixels to which images are resized, None to keep their
            size.

    Returns:
        A pair (images, labels): a torch tensor of images, uint8 [N,1,H,W] with values from 0 to 16, and a NumPy array
        of labels, int64 [N], 0 for even digits and 1 for odd ones. H and W are `options.size`, or 8 if it is None.
    """
    images, labels = digits.read(split, options)
    return images, labels % 2
