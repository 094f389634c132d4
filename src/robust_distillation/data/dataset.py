"""A split in memory, and where its views come from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_distillation.data import info, registry
from robust_distillation.data.info import DatasetInfo
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
        return (self.images if images is None else images).float() / self.info.white

    def views(self, scheme: ViewScheme, index: Tensor, views: Tensor) -> Tensor:
        """float32 [B,C,H,W] in [0,1]: view `views[i]` of image `index[i]`."""
        return self.floats(scheme.apply(self.images[index], views))

    def first(self, count: int | None) -> Dataset:
        return self if count is None else Dataset(self.images[:count], self.labels[:count], self.info)

    def digest(self) -> str:
        """sha256 of shape, pixels, white level and labels: the name of these data in every record."""
        found = hashlib.sha256(repr((tuple(self.images.shape), self.info.white)).encode())
        found.update(self.images.contiguous().numpy().tobytes())
        found.update(self.labels.contiguous().numpy().tobytes())
        return found.hexdigest()


def load(name: str, split: str, folder: str = "data") -> Dataset:
    """A whole split: train, validation or test. `folder` is where datasets that are files on disk lie."""
    facts = info(name)
    if split not in facts.sizes:
        raise UserError(unknown("split", split, facts.sizes))
    images, labels = registry.module(name).read(split, folder)
    images, labels = torch.as_tensor(images), torch.as_tensor(labels)
    if tuple(images.shape) != (facts.sizes[split], *facts.shape) or len(labels) != len(images):
        raise UserError(
            f"dataset {name}, {split}: found {tuple(images.shape)} images and {len(labels)} labels under {folder!r}, "
            f"expected {(facts.sizes[split], *facts.shape)}. Remove the files and fetch them again"
        )
    return Dataset(images, labels, facts)
