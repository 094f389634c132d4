"""Loading a split of a dataset into memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_distillation.data import info, registry
from robust_distillation.data.info import SPLITS, DataOptions, DatasetInfo
from robust_distillation.data.views import Views
from robust_distillation.device import to_device
from robust_distillation.errors import UserError, unknown


@dataclass(frozen=True)
class Dataset:
    """Images and labels of one split, in memory.

    Attributes:
        images: uint8 [N,C,H,W], with values from 0 to info.max_value.
        labels: int64 [N].
        info: shape, classes and sizes of the dataset.
    """

    images: Tensor
    labels: Tensor
    info: DatasetInfo

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.labels)

    def floats(self, images: Tensor | None = None) -> Tensor:
        """Converts pixels to float32 in [0,1].

        images: uint8 [B,C,H,W] with the value range of this dataset, or None for all images of the dataset.
        """
        floats = (self.images if images is None else images).to(torch.float32, copy=True)
        return floats.div_(self.info.max_value)  # in place: a new tensor for every batch takes ten times as long

    def views(self, scheme: Views, index: Tensor, views: Tensor) -> Tensor:
        """Returns a batch of views: of what an augmentation makes of the images.

        Args:
            scheme: the views that exist and their numbers.
            index: int64 [B], positions of the images in this dataset, on the CPU.
            views: int64 [B], the number of the view of each image, on the CPU.

        Returns:
            float32 [B,C,H,W] in [0,1], on the dataset's device.
        """
        images = self.images.index_select(0, to_device(index, self.images.device))
        return self.floats(scheme.apply(images, index, views))

    def to(self, device: torch.device) -> Dataset:
        """Returns a copy with its tensors on `device`. Its views are then computed on `device` too."""
        return Dataset(self.images.to(device), self.labels.to(device), self.info)

    def first(self, count: int | None) -> Dataset:
        """Returns the first `count` images, or this dataset if `count` is None. Fewer images than `count` are no error.

        `info.sizes` still states the sizes of the whole splits.
        """
        return self if count is None else Dataset(self.images[:count], self.labels[:count], self.info)

    def followed_by(self, other: Dataset) -> Dataset:
        """Concatenates this dataset and `other`. The result has the info of this dataset."""
        return Dataset(torch.cat([self.images, other.images]), torch.cat([self.labels, other.labels]), self.info)

    def digest(self) -> str:
        """Computes the sha256 (64 hexadecimal digits) of shape, max_value, pixels and labels.

        Records use it to identify the data: equal data have an equal digest. The images must be on the CPU.
        """
        hasher = hashlib.sha256(repr((tuple(self.images.shape), self.info.max_value)).encode())
        hasher.update(self.images.contiguous().numpy().tobytes())
        hasher.update(self.labels.contiguous().numpy().tobytes())
        return hasher.hexdigest()


def load(name: str, split: str, options: DataOptions = DataOptions()) -> Dataset:  # noqa: B008 (immutable)
    """Loads a whole split. Downloads the dataset's missing files first, if `options.download` allows it.

    Args:
        name: name of a registered dataset.
        split: "train", "validation" or "test".
        options: folder, size and checksum options.

    Returns:
        The split on the CPU.

    Raises:
        UserError: if the name or the split is unknown, if a file is missing or broken, if the number or shape of the
            images is not the expected one, if there is no image, or if a label is not a class number.
    """
    module = registry.module(name)
    if split not in SPLITS:
        raise UserError(unknown("split", split, SPLITS))
    module.fetch(options)
    expected_info = info(name, options)
    images, labels = map(torch.as_tensor, module.read(split, options))
    expected = (expected_info.sizes[split], *expected_info.shape)
    if tuple(images.shape) != expected or len(labels) != len(images):
        raise UserError(
            f"dataset {name}, {split}: found {tuple(images.shape)} images and {len(labels)} labels under "
            f"{options.folder!r}, expected {expected}. Remove the files and fetch them again, or set dataset.verify: "
            "false if they are your own"
        )
    if not len(labels):
        raise UserError(f"dataset {name}: there are no {split} images under {options.folder!r}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(expected_info.classes):
        raise UserError(
            f"dataset {name}, {split}: the labels under {options.folder!r} run from {low} to {high}, but there are "
            f"{len(expected_info.classes)} classes, 0 to {len(expected_info.classes) - 1}"
        )
    return Dataset(images, labels, expected_info)
