"""The batches of an epoch: their images, views and order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_distillation.data.dataset import Dataset
from robust_distillation.data.extra import images_in_batch
from robust_distillation.data.views import Views, epoch_order
from robust_distillation.device import to_device
from robust_distillation.randomness import generator
from robust_distillation.settings import Training
from robust_distillation.training.parallel import Group
from robust_distillation.training.schedule import steps_per_epoch


@dataclass(frozen=True)
class Batch:
    """One batch of a training. With several processes it holds the share of one process.

    B is the number of images of this process, T the number of images in the whole batch of all processes.

    Attributes:
        x: what the augmentation makes of each training image (a view), in [0, 1], float32 [B,C,H,W], on the training
            device.
        labels: class numbers, int64 [B], on the training device; -1 for an image without a label.
        ids: positions of all T images of the whole batch in the training images, int64 [T], on the CPU. Those of extra
            images follow those of the training split.
        view_ids: number of the view of each of the T images, from 0 to len(views) - 1, int64 [T], on the CPU.
        epoch: number of the epoch, counted from 1.
        number: number of the batch within the epoch, counted from 0.
        steps: number of batches of the epoch.
    """

    x: Tensor
    labels: Tensor
    ids: Tensor
    view_ids: Tensor
    epoch: int
    number: int
    steps: int


def batches(
    data: Dataset,
    scheme: Views,
    settings: Training,
    seed: int,
    epoch: int,
    device: torch.device,
    first: int = 0,
    group: Group = Group(),  # noqa: B008 (immutable)
) -> Iterator[Batch]:
    """Yields the batches of one epoch.

    The order of the images and their views depend on `seed`, `epoch`, the numbers of images and the share of the extra
    ones only, see `epoch_batches`. So an epoch can be repeated, or continued from any batch.

    Args:
        data: the training split: images uint8 [N,C,H,W] and labels int64 [N], as `data.dataset.load` returns them; each
            batch is augmented on the device where the images lie.
        scheme: the numbered views of the training images (a view is what the augmentation makes of an image), such as
            `ViewScheme(padding=4, flips=True)` for all crops and flips; `pipeline.experiment_data.views_of` returns
            them.
        settings: the training settings, of which `batch_size` (of all processes together) and `drop_last` (True: a
            smaller last batch is left out) are used.
        seed: seed of the training.
        epoch: number of the epoch, counted from 1.
        device: device of `x` and `labels` in the yielded batches.
        first: number of the first batch to yield, counted from 0. Earlier batches are skipped, so that an interrupted
            epoch can be continued.
        group: the processes of torch.distributed that share each batch, with `rank` and `size`; by default one process.
            `x` and `labels` hold the rows of this process only.

    Yields:
        One `Batch` for each batch of the epoch: `x` (views in [0, 1], float32 [B,C,H,W]), `labels` int64 [B], the
        positions and view numbers of the images, `epoch`, `number` and `steps` (batches of the epoch).
    """
    views = scheme.epoch(seed, epoch, len(data))
    positions = epoch_batches(data, settings, seed, epoch)
    for number, ids in enumerate(positions):
        if number < first:
            continue
        rows = ids[group.shard(len(ids))]
        x, labels = data.views(scheme, rows, views[rows]), data.labels[to_device(rows, data.labels.device)]
        yield Batch(x.to(device), labels.to(device), ids, views[ids], epoch, number, len(positions))


def epoch_batches(data: Dataset, settings: Training, seed: int, epoch: int) -> list[Tensor]:
    """Draws the images of each batch of an epoch.

    An epoch has the batches that it has without extra images. In a batch of B images, B x `data.share`, rounded down,
    are extra images, spread evenly over the batch, so that each of several processes gets its share. The others are the
    first of a permutation of the training images, drawn anew in each epoch. Extra images follow permutations that are
    drawn one after the other and go on from epoch to epoch, so that none is visited twice before all are visited once.

    Args:
        data: the training images.
        settings: the training settings, of which `batch_size` and `drop_last` are used.
        seed: seed of the training.
        epoch: number of the epoch, counted from 1.

    Returns:
        The positions of the images of each batch, int64 [B], on the CPU; those of extra images are `data.own` and more.
    """
    size, steps = settings.batch_size, steps_per_epoch(settings, data.own)
    sizes = [min(size, data.own - number * size) for number in range(steps)]
    counts = [images_in_batch(size, data.share) for size in sizes] if data.extra else [0] * steps
    own = epoch_order(seed, epoch, data.own)
    extra = data.own + _extra_order(seed, epoch, data.extra, sum(counts))
    found = []
    for size, count in zip(sizes, counts, strict=True):
        place = torch.arange(size + 1) * count // size  # number of extra images before each place
        ids, is_extra = torch.empty(size, dtype=torch.int64), place.diff() > 0
        ids[is_extra], extra = extra[:count], extra[count:]
        ids[~is_extra], own = own[: size - count], own[size - count :]
        found.append(ids)
    return found


def _extra_order(seed: int, epoch: int, images: int, count: int) -> Tensor:
    """Returns `count` positions in the extra images: the epoch's part of a sequence of permutations of all of them."""
    if not count:
        return torch.empty(0, dtype=torch.int64)
    start = (epoch - 1) * count
    numbers = range(start // images, -(-(start + count) // images))
    order = torch.cat([torch.randperm(images, generator=generator(seed, "extra", number)) for number in numbers])
    return order[start % images :][:count]
