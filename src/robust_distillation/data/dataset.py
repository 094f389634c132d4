"""Loading a split of a dataset into memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

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

    `load` makes it. It is not a torch.utils.data.Dataset and is not indexed: a batch is taken by `views`.

    Attributes:
        images: uint8 [N,C,H,W], with values from 0 to `info.max_value`.
        labels: class numbers, int64 [N]; label k is the class `info.classes[k]`.
        info: a DatasetInfo: `shape` (C,H,W), `classes` (their names), `sizes` of the splits, `flips`, and `max_value`,
            the pixel value that stands for 1.0 (255; 16 for the digits).
        extra: number of extra images (generated ones, for example), which are the last; 0: none.
        share: share of the extra images in each batch of a training, in [0, 1].
    """

    images: Tensor
    labels: Tensor
    info: DatasetInfo
    extra: int = 0
    share: float = 0.0

    @property
    def own(self) -> int:
        """The number of images that are not extra images; they come first."""
        return len(self) - self.extra

    def __len__(self) -> int:
        """Returns the number of images, N."""
        return len(self.labels)

    def floats(self, images: Tensor | None = None) -> Tensor:
        """Converts pixels to float32 in [0,1] by division by `info.max_value`.

        Args:
            images: uint8 [B,C,H,W] with values from 0 to `info.max_value`, or None for all images of this dataset. They
                stay unchanged.

        Returns:
            float32 [B,C,H,W] in [0,1], on the device of the images.
        """
        floats = (self.images if images is None else images).to(torch.float32, copy=True)
        return floats.div_(self.info.max_value)  # in place: a new tensor for every batch takes ten times as long

    def views(self, scheme: Views, index: Tensor, views: Tensor) -> Tensor:
        """Returns a batch of augmented images (views) in [0,1].

        Args:
            scheme: the augmentation as numbered views of each image, such as `ViewScheme(padding=4, flips=True)`: all
                crops of the image padded by 4 pixels and their mirror images.
            index: int64 [B], positions of the images in this dataset, on the CPU.
            views: number of the view of each image, from 0 to len(scheme) - 1, int64 [B] on the CPU.

        Returns:
            float32 [B,C,H,W] in [0,1], on the dataset's device.
        """
        images = self.images.index_select(0, to_device(index, self.images.device))
        return self.floats(scheme.apply(images, index, views))

    def to(self, device: torch.device) -> Dataset:
        """Returns this dataset with its tensors on another device. Batches of `views` are then computed there, too.

        Args:
            device: the device, such as torch.device("cuda").

        Returns:
            A new dataset. Its tensors are copies, or the same tensors if they are on `device` already.
        """
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def first(self, count: int | None) -> Dataset:
        """Returns the first images of this dataset.

        Args:
            count: number of images; if it exceeds the number of images, all of them. None for this dataset as it is.

        Returns:
            A dataset that shares its memory with this one, without extra images. Its `info.sizes` still has the sizes
            of the whole splits.
        """
        if count is None:
            return self
        count = min(count, self.own)
        return Dataset(self.images[:count], self.labels[:count], self.info)

    def after(self, count: int) -> Dataset:
        """Returns the images behind the first `count` ones, as a dataset that shares its memory with this one."""
        return Dataset(self.images[count : self.own], self.labels[count : self.own], self.info)

    def followed_by(self, other: Dataset) -> Dataset:
        """Concatenates the images and labels of this dataset and of another one.

        Args:
            other: dataset whose images come after those of this one. The shapes of the images must be equal.

        Returns:
            A new dataset with the `info` of this one; `info.sizes` still has the sizes of the splits before.
        """
        return Dataset(torch.cat([self.images, other.images]), torch.cat([self.labels, other.labels]), self.info)

    def with_extra(self, other: Dataset, share: float) -> Dataset:
        """Adds extra images, of which each batch of a training gets a share.

        Args:
            other: the extra images, with the label -1 where there is none.
            share: their share in each batch, in [0, 1].

        Returns:
            A new dataset: the images of this one, then those of `other`.
        """
        return replace(self.followed_by(other), extra=len(other), share=share)

    def with_extra_labels(self, labels: Tensor) -> Dataset:
        """Replaces the labels of the extra images.

        Args:
            labels: their class numbers, int64 [extra].

        Returns:
            A new dataset that shares the images with this one.
        """
        return replace(self, labels=torch.cat([self.labels[: self.own], labels]))

    def digest(self) -> str:
        """Computes a sha256 of the images' shape, `info.max_value`, the pixels and the labels.

        It identifies the data in the files that an experiment writes: equal data have an equal digest. The tensors must
        be on the CPU.

        Returns:
            64 hexadecimal digits.
        """
        hasher = hashlib.sha256(repr((tuple(self.images.shape), self.info.max_value)).encode())
        hasher.update(self.images.contiguous().numpy())  # no copy: extra images may be gigabytes
        hasher.update(self.labels.contiguous().numpy())
        return hasher.hexdigest()


def load(name: str, split: str, options: DataOptions = DataOptions()) -> Dataset:  # noqa: B008 (immutable)
    """Loads a whole split into memory. Downloads or unpacks missing files first, if `options.download` allows it.

    Args:
        name: name of a dataset: `cifar10`, `cifar100`, `svhn`, `stl10`, `fashion_mnist`, `digits`, `digits_parity`,
            `image_folder` (your own images), or one that another package registers.
        split: "train", "validation" or "test".
        options: a DataOptions: `folder` of the files, `size` to which images are resized, `download`, `verify`
            (checksums), `mirror` and `classes`. The default is the folder `data` and the original size.

    Returns:
        The split on the CPU: `images` uint8 [N,C,H,W] with values from 0 to `info.max_value`, `labels` int64 [N], and
        `info` (shape, class names, split sizes). `floats()` converts the images to float32 in [0,1].

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
