"""Even or odd: the images and splits of `digits` with two classes, as a second task on the same images."""

from __future__ import annotations

from dataclasses import replace

from robust_distillation.data import digits
from robust_distillation.data.info import DataOptions, DatasetInfo

check, fetch = digits.check, digits.fetch


def info(options: DataOptions) -> DatasetInfo:
    """Returns image shape, classes and split sizes. H and W of the shape are `options.size`, or 8."""
    return replace(digits.info(options), classes=("even", "odd"))


def read(split: str, options: DataOptions):
    """Reads one split.

    Args:
        split: "train", "validation" or "test".
        options: only `size` is used.

    Returns:
        uint8 images [N,1,H,W] with values from 0 to 16, and int64 labels [N]: 0 for even digits, 1 for odd ones.
    """
    images, labels = digits.read(split, options)
    return images, labels % 2
