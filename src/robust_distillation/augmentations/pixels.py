"""Operations that move or blacken pixels, each with other parameters for every image of a batch.

Images are tensors [B,C,H,W] of any dtype, on any device. Parameters are int64 or boolean arrays [B] on the CPU. A row
of a result depends on this row alone.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from robust_distillation.augmentations.draws import Draws
from robust_distillation.data.info import DatasetInfo
from robust_distillation.data.views import ViewScheme
from robust_distillation.device import to_device

TRIES, ASPECTS = 10, (0.3, 3.3)  # of random erasing


def random_flip(images: Tensor, draws: Draws, info: DatasetInfo) -> Tensor:
    """Mirrors each image left to right with probability 1/2, if mirrored images of the dataset keep their class.

    Args:
        images: tensor [B,C,H,W] of any dtype, on any device; not modified.
        draws: the random numbers of the batch: each call, such as `draws.uniform()`, returns a new number for every
            row, [B].
        info: facts about the dataset, as `data.info` returns them; only `flips` is used: True if mirrored images keep
            their class.

    Returns:
        Tensor [B,C,H,W] of the same dtype, on the same device. `images` if `info.flips` is False; then no number is
        drawn.
    """
    if not info.flips:
        return images
    mirrored = to_device(torch.from_numpy(draws.coin()), images.device)
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


def random_crop_flip(images: Tensor, draws: Draws, info: DatasetInfo, padding: int) -> Tensor:
    """Takes a random crop of each zero-padded image, mirrored with probability 1/2 if `info.flips` is True.

    All crops are equally likely. The crops are those of the augmentation `crop_flip` (`data.views.ViewScheme`).

    Args:
        images: tensor [B,C,H,W] of any dtype, on any device; not modified.
        draws: the random numbers of the batch: each call, such as `draws.uniform()`, returns a new number for every
            row, [B].
        info: facts about the dataset, as `data.info` returns them; only `flips` is used: True if mirrored images keep
            their class.
        padding: width in pixels of the zeros on each side of an image; at least 0.

    Returns:
        Tensor [B,C,H,W] of the same dtype, on the same device.
    """
    scheme = ViewScheme(padding, info.flips)
    views = torch.from_numpy(draws.integers(0, len(scheme)))
    return scheme.apply(images, views, views)


def moved_window(images: Tensor, size: tuple, source: tuple, target: tuple) -> Tensor:
    """Cuts a window out of each image and puts it at another place on black.

    Args:
        images: tensor [B,C,H,W] of any dtype, on any device; not modified.
        size: height and width of the windows in pixels, two int64 arrays [B].
        source: row and column in the image of each window's upper left corner, two int64 arrays [B].
        target: row and column in the result of each window's upper left corner, two int64 arrays [B].

    Returns:
        Tensor [B,C,H,W] of the same dtype, on the same device. All pixels outside of the windows are 0.
    """
    height, width = images.shape[-2:]
    rows, columns = (
        _positions(side, length, begin, place, images.device)
        for side, length, begin, place in zip((height, width), size, source, target, strict=True)
    )
    framed = torch.nn.functional.pad(images, [0, 1, 0, 1])  # row `height` and column `width` are black
    pixels = (rows[:, :, None] * (width + 1) + columns[:, None, :]).flatten(1)
    return framed.flatten(2).gather(2, pixels[:, None].expand(-1, images.shape[1], -1)).view_as(images)


def _positions(side: int, length: np.ndarray, begin: np.ndarray, place: np.ndarray, device: torch.device) -> Tensor:
    """Returns for each position along a side of the result the position in the image, `side` outside of the window."""
    offset = np.arange(side) - place[:, None]
    positions = np.where((offset >= 0) & (offset < length[:, None]), begin[:, None] + offset, side)
    return to_device(torch.from_numpy(positions), device)


def random_crop_shift(images: Tensor, draws: Draws, low: int, high: int) -> Tensor:
    """Cuts rows and columns off each image and puts the rest at a random place on black (Li and Spratling, 2023).

    In all, s rows and columns are cut off, s uniform on {low, ..., high - 1}; the number of columns among them is
    uniform on {0, ..., s}. The place of the rest in the image and its place in the result are uniform and independent.

    Args:
        images: tensor [B,C,H,W] of any dtype, on any device; not modified.
        draws: the random numbers of the batch: each call, such as `draws.uniform()`, returns a new number for every
            row, [B].
        low: least number of rows and columns that are cut off, at least 0.
        high: one more than the greatest number, above `low`; at most the shorter side of the images.

    Returns:
        Tensor [B,C,H,W] of the same dtype, on the same device.
    """
    lines = draws.integers(low, high)
    columns = draws.integers(0, lines + 1)
    cut = lines - columns, columns
    size = tuple(side - lost for side, lost in zip(images.shape[-2:], cut, strict=True))
    source, target = (tuple(draws.integers(0, lost + 1) for lost in cut) for _ in range(2))
    return moved_window(images, size, source, target)


def blackened(images: Tensor, corner: tuple, size: tuple) -> Tensor:
    """Sets the pixels of a box in each image to 0, in all channels.

    Args:
        images: tensor [B,C,H,W] of any dtype, on any device; not modified.
        corner: row and column of each box's upper left corner, two int64 arrays [B]; they may lie outside of the image.
        size: height and width of the boxes in pixels, two int64 arrays [B] or two numbers. The part of a box outside of
            the image is ignored.

    Returns:
        Tensor [B,C,H,W] of the same dtype, on the same device.
    """
    inside = []
    for side, begin, length in zip(images.shape[-2:], corner, size, strict=True):
        offset = np.arange(side) - begin[:, None]
        inside.append((offset >= 0) & (offset < np.reshape(length, (-1, 1))))
    box = to_device(torch.from_numpy(inside[0][:, None, :, None] & inside[1][:, None, None, :]), images.device)
    return images.masked_fill(box, 0)


def random_erasing(images: Tensor, draws: Draws, probability: float, area: tuple[float, float]) -> Tensor:
    """Blackens a random box in each image, as torchvision's RandomErasing with the value 0 (Zhong et al., 2020).

    The area of a box is a uniform share of the image's area. Its height divided by its width is log-uniform from 0.3 to
    3.3. Its place inside of the image is uniform. A box whose height or width is not below that of the image is drawn
    again, up to ten times in all; if none is small enough, the image stays as it is.

    Args:
        images: tensor [B,C,H,W] of any dtype, on any device; not modified.
        draws: the random numbers of the batch: each call, such as `draws.uniform()`, returns a new number for every
            row, [B].
        probability: probability, in [0, 1], that a box is blackened in an image.
        area: least and greatest share of the image's area, such as (0.02, 0.33).

    Returns:
        Tensor [B,C,H,W] of the same dtype, on the same device.
    """
    height, width = images.shape[-2:]
    chosen = draws.coin(probability)
    rows, columns, found = (np.zeros(len(images), kind) for kind in (np.int64, np.int64, bool))
    for _ in range(TRIES):
        pixels, aspect = height * width * draws.uniform(*area), np.exp(draws.uniform(*np.log(ASPECTS)))
        tried = np.rint(np.sqrt(pixels * aspect)).astype(np.int64), np.rint(np.sqrt(pixels / aspect)).astype(np.int64)
        new = ~found & (tried[0] < height) & (tried[1] < width)
        rows, columns, found = np.where(new, tried[0], rows), np.where(new, tried[1], columns), found | new
    corner = draws.integers(0, height - rows + 1), draws.integers(0, width - columns + 1)
    return blackened(images, corner, (np.where(chosen, rows, 0), columns))
