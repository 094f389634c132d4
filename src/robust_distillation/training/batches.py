"""The batches of an epoch: their images, views and order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_distillation.data.dataset import Dataset
from robust_distillation.data.views import Views, epoch_order
from robust_distillation.device import to_device
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
        ids: positions in the training split of all T images of the whole batch, int64 [T], on the CPU.
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

    The order of the images and their views depend on `seed`, `epoch` and the number of images only. So an epoch can be
    repeated, or continued from any batch.

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
    views, steps = scheme.epoch(seed, epoch, len(data)), steps_per_epoch(settings, len(data))
    for number, ids in enumerate(epoch_order(seed, epoch, len(data)).split(settings.batch_size)):
        if number < first:
            continue
        if number == steps:
            break
        rows = ids[group.shard(len(ids))]
        x, labels = data.views(scheme, rows, views[rows]), data.labels[to_device(rows, data.labels.device)]
        yield Batch(x.to(device), labels.to(device), ids, views[ids], epoch, number, steps)
