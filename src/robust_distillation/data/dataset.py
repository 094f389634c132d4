"""A split in memory, and where its views come from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_distillation.data import info, registry
from robust_distillation.data.info import SPLITS, DataOptions, DatasetInfo
from robust_distillation.data.views import ViewScheme
from robust_distillation.errors import UserError, unknown


@dataclass(frozen=True)
class Dataset:
    """images uint8 [N,C,H,W], labels int64 [N]."""

    images: Tensor
    labels: Tensor
    info: DatasetInfo

    def __len__(self) -> int:
        return len(self.labels)

    def floats(self, images: Tensor | None = None) -> Tensor:
        """float32 in [0,1], of all images or of the uint8 images given."""
        floats = (self.images if images is None else images).to(torch.float32, copy=True)
        return floats.div_(self.info.white)  # in place: fresh memory for every batch would take ten times as long

    def views(self, scheme: ViewScheme, index: Tensor, views: Tensor) -> Tensor:
        """float32 [B,C,H,W] in [0,1]: view `views[i]` of image `index[i]`."""
        return self.floats(scheme.apply(self.images.index_select(0, index), views))

    def to(self, device: torch.device) -> Dataset:
        """The same, whose views are then made there too."""
        return Dataset(self.images.to(device), self.labels.to(device), self.info)

    def first(self, count: int | None) -> Dataset:
        return self if count is None else Dataset(self.images[:count], self.labels[:count], self.info)

    def followed_by(self, other: Dataset) -> Dataset:
        """These images and then the others."""
        return Dataset(torch.cat([self.images, other.images]), torch.cat([self.labels, other.labels]), self.info)

    def digest(self) -> str:
        """sha256 of shape, pixels, white level and labels: the name of these data in every record."""
        found = hashlib.sha256(repr((tuple(self.images.shape), self.info.white)).encode())
        found.update(self.images.contiguous().numpy().tobytes())
        found.update(self.labels.contiguous().numpy().tobytes())
        return found.hexdigest()


def load(name: str, split: str, options: DataOptions = DataOptions()) -> Dataset:  # noqa: B008 (immutable)
    """A whole split: train, validation or test; fetches files that are missing and may be fetched.

    Raises UserError where the files are not what the dataset is said to be.
    """
    module = registry.module(name)
    if split not in SPLITS:
        raise UserError(unknown("split", split, SPLITS))
    module.fetch(options)
    facts = info(name, options)
    images, labels = map(torch.as_tensor, module.read(split, options))
    expected = (facts.sizes[split], *facts.shape)
    if tuple(images.shape) != expected or len(labels) != len(images):
        raise UserError(
            f"dataset {name}, {split}: found {tuple(images.shape)} images and {len(labels)} labels under "
            f"{options.folder!r}, expected {expected}. Remove the files and fetch them again, or set dataset.verify: "
            "false where they are your own"
        )
    if not len(labels):
        raise UserError(f"dataset {name}: there are no {split} images under {options.folder!r}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(facts.classes):
        raise UserError(
            f"dataset {name}, {split}: the labels under {options.folder!r} run from {low} to {high}, but there are "
            f"{len(facts.classes)} classes, 0 to {len(facts.classes) - 1}"
        )
    return Dataset(images, labels, facts)
