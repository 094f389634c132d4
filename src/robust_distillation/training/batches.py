"""The batches of an epoch: their images, views and order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_distillation.data.dataset import Dataset
from robust_distillation.data.views import ViewScheme, epoch_order
from robust_distillation.device import to_device
from robust_distillation.settings import Training
from robust_distillation.training.parallel import Group


@dataclass(frozen=True)
class Batch:
    """One batch of a training, or one process's rows of it.

    Attributes:
        x: views of training images in [0,1], float [B,C,H,W], on the device of the student.
        labels: int64 [B], on the device of the student.
        ids: positions in the training split of the whole batch of all processes, int64, on the CPU.
        view_ids: numbers of the views of the whole batch, int64, on the CPU.
        epoch: number of the epoch, counted from 1.
        number: number of the batch in the epoch, counted from 0.
    """

    x: Tensor
    labels: Tensor
    ids: Tensor
    view_ids: Tensor
    epoch: int
    number: int


def batches(
    data: Dataset,
    scheme: ViewScheme,
    settings: Training,
    seed: int,
    epoch: int,
    device: torch.device,
    first: int = 0,
    group: Group = Group(),  # noqa: B008 (immutable)
) -> Iterator[Batch]:
    """Yields the batches of an epoch. Order and views are pure functions of seed and epoch.

    Args:
        data: the training images.
        scheme: the views of an image.
        settings: batch size, and whether a smaller last batch is left out.
        seed: seed of the training.
        epoch: number of the epoch, counted from 1.
        device: device of x and labels.
        first: number of the first batch that is yielded, counted from 0.
        group: the processes that share each batch; x and labels have the rows of this process.
    """
    views = scheme.epoch(seed, epoch, len(data))
    for number, ids in enumerate(epoch_order(seed, epoch, len(data)).split(settings.batch_size)):
        if number < first:
            continue
        if settings.drop_last and len(ids) < settings.batch_size:
            break
        rows = ids[group.shard(len(ids))]
        there, chosen = (to_device(numbers, data.images.device) for numbers in (rows, views[rows]))
        x, labels = data.views(scheme, there, chosen).to(device), data.labels[there].to(device)
        yield Batch(x, labels, ids, views[ids], epoch, number)
