"""The images and splits of `digits`, told apart as even or odd: a second task on the same images."""

from __future__ import annotations

from dataclasses import replace

from robust_distillation.data import digits
from robust_distillation.data.info import DataOptions, DatasetInfo

check, fetch = digits.check, digits.fetch


def info(options: DataOptions) -> DatasetInfo:
    return replace(digits.info(options), classes=("even", "odd"))


def read(split: str, options: DataOptions):
    """uint8 images [N,1,H,W] and int64 labels [N], 1 for the odd digits."""
    images, labels = digits.read(split, options)
    return images, labels % 2
