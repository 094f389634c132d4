"""Views of the training images: what an augmentation makes of an image, with a number.

A view depends on the image, its position in the training split and the number of the view alone. So a teacher's answer
to it can be cached.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from robust_distillation.device import to_device
from robust_distillation.randomness import generator


class Views(Protocol):
    """The augmented versions (views) of the training images, numbered for each image from 0 to len(views) - 1.

    A view depends on the image, its position in the training split and the number of the view alone. So a teacher's
    output on it can be cached. `ViewScheme` (all crops and flips) and `augmentations.random_views.RandomViews` (one
    view for each epoch) have this form.
    """

    @property
    def key(self) -> dict[str, Any]:
        """All that a view depends on besides image, position and number, as JSON values, such as {"padding": 4}."""

    def __len__(self) -> int:
        """Returns the number of views of an image."""

    def epoch(self, seed: int, epoch: int, samples: int) -> Tensor:
        """Returns the number of the view of each training image in one epoch.

        Args:
            seed: seed of the training.
            epoch: number of the epoch, counted from 1.
            samples: number of training images.

        Returns:
            View numbers int64 [samples] on the CPU, by position of the image in the training split.
        """

    def apply(self, images: Tensor, ids: Tensor, views: Tensor) -> Tensor:
        """Returns one view (augmented version) of each image. A row depends on this row of the arguments alone.

        Args:
            images: uint8 [B,C,H,W], on any device.
            ids: position of each image in the training split, int64 [B] on the CPU.
            views: number of the view of each image, from 0, int64 [B] on the CPU.

        Returns:
            Tensor [B,C,H,W] of the same dtype, on the device of `images`.
        """


@dataclass(frozen=True)
class ViewScheme:
    """The views of an image and their numbers: all crops of the zero-padded image, each also mirrored if `flips`.

    A view is one crop-and-flip of an image, named by an integer v from 0 to len(scheme) - 1. With side = 2 * padding +
    1,

        v = flip * side^2 + dy * side + dx,

    where (dy, dx) is the upper left corner of the crop in the padded image and flip is 1 for the mirrored crop. The
    pixels are those of torchvision's RandomCrop(size, padding) followed by RandomHorizontalFlip.

    Attributes:
        padding: width in pixels of the border of zeros on each side; 0 for no border, so that the only crop is the
            image.
        flips: True if the mirrored crops are views, too.
    """

    padding: int
    flips: bool

    @property
    def key(self) -> dict[str, Any]:
        """Padding and flips, which determine the views, such as {"padding": 4, "flips": True}."""
        return {"padding": self.padding, "flips": self.flips}

    @property
    def side(self) -> int:
        """Number of positions of the crop along one axis, 2 * padding + 1."""
        return 2 * self.padding + 1

    def __len__(self) -> int:
        """Returns the number of views of an image, 162 for a padding of 4 with flips."""
        return self.side**2 * (2 if self.flips else 1)

    @property
    def identity(self) -> int:
        """Number of the view that equals the image: the crop without displacement, not mirrored."""
        return self.padding * self.side + self.padding

    def apply(self, images: Tensor, ids: Tensor, views: Tensor) -> Tensor:
        """Returns one view (a crop of the zero-padded image, mirrored or not) of each image.

        Args:
            images: tensor [B,C,H,W] of any dtype, on any device.
            ids: not used: a view has the same crop and flip of every image.
            views: int64 [B], the number of the view of each image, on the CPU.

        Returns:
            New tensor [B,C,H,W] of the same dtype, on the device of `images`.
        """
        views, starts = to_device(views, images.device), _crop_indices(self, *images.shape[-2:], images.device)
        rows, columns = (table.index_select(0, views) for table in starts)
        padded = torch.nn.functional.pad(images, [self.padding] * 4)
        # One gather over the pixels of a channel, the same for all of them: four times as fast as indexing by axis.
        pixels = (rows[:, :, None] + columns[:, None, :]).flatten(1)
        return padded.flatten(2).gather(2, pixels[:, None].expand(-1, images.shape[1], -1)).view_as(images)

    def epoch(self, seed: int, epoch: int, samples: int) -> Tensor:
        """Draws the number of the view of each training image in one epoch, uniformly and independently.

        The result depends on the arguments alone, so that an epoch can be repeated.

        Args:
            seed: seed of the training.
            epoch: number of the epoch; another number gives other views.
            samples: number of training images.

        Returns:
            View numbers, int64 [samples] on the CPU. Entry i is for the image at position i in the training split.
        """
        return torch.randint(len(self), (samples,), generator=generator(seed, "views", epoch))


@cache
def _crop_indices(scheme: ViewScheme, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns the pixel positions of all V views in a flattened padded image.

    The first tensor [V,H] holds the position at which each row of the padded image begins. The second one [V,W] holds
    the offset of each column within its row. Their sum is the position of a pixel.
    """
    views = torch.arange(len(scheme), device=device)[:, None]
    flip, corner = views // scheme.side**2, views % scheme.side**2
    rows = corner // scheme.side + torch.arange(height, device=device)
    columns = torch.arange(width, device=device)
    columns = corner % scheme.side + torch.where(flip == 1, width - 1 - columns, columns)
    return rows * (width + 2 * scheme.padding), columns


def epoch_order(seed: int, epoch: int, samples: int) -> Tensor:
    """Draws the random order in which one epoch visits the training images.

    The result depends on the arguments alone, so that an epoch can be repeated.

    Args:
        seed: seed of the training.
        epoch: number of the epoch; another number gives another order.
        samples: number of training images.

    Returns:
        A permutation of the positions 0 to samples - 1, int64 [samples] on the CPU.
    """
    return torch.randperm(samples, generator=generator(seed, "order", epoch))
