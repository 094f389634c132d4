"""Fills the cache: the teacher runs once on every view of every training image.

A view is what an augmentation makes of one training image, see `data.views`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robust_distillation.cache.store import Writer
from robust_distillation.data.dataset import Dataset
from robust_distillation.data.views import Views
from robust_distillation.models.frozen import frozen
from robust_distillation.models.output import output
from robust_distillation.resume import ResumableJob

BATCH = 512  # views per forward pass


def teacher_values(
    teacher: nn.Module,
    data: Dataset,
    scheme: Views,
    kind: str,
    device: torch.device | str = "cpu",
    first_batch: int = 0,
) -> Iterator[Tensor]:
    """Computes a teacher's logits or features on each view of each image, in batches and without gradient.

    A view is what an augmentation makes of an image, named by a number.

    Args:
        teacher: network on `device` with the modules `features`, which maps images [B,C,H,W] in [0,1] to features
            [B,D], and `classifier`, which maps features to logits [B,K]. It is in eval mode until the iterator ends;
            then its modes are restored.
        data: the training split, N images: `images` uint8 [N,C,H,W] and `labels` int64 [N], as `data.dataset.load`
            returns them.
        scheme: the V views of an image, such as `ViewScheme(padding=4, flips=True)`, all crops of the image padded by 4
            pixels and their mirror images.
        kind: `logits` or `features`.
        device: device of the computation.
        first_batch: number of the batch to begin with, from 0. The batches before it are not computed.

    Yields:
        Tensors [B,width] on `device` in the dtype of the teacher's parameters. The width is K for logits and D for
        features. B is 512, in the last batch at most that. The rows of all batches in order are image 0 in all V views
        by number, then image 1, and so on: N * V rows.
    """
    dtype = next(teacher.parameters()).dtype
    positions = torch.arange(len(data) * len(scheme))
    with frozen(teacher), torch.no_grad():
        for batch in positions.split(BATCH)[first_batch:]:
            x = data.views(scheme, batch // len(scheme), batch % len(scheme)).to(device, dtype)
            yield getattr(output(teacher, x), kind)


def fill_cache(
    path: str | Path,
    key: dict[str, Any],
    teacher: nn.Module,
    data: Dataset,
    scheme: Views,
    kind: str,
    device: torch.device | str = "cpu",
    work: ResumableJob | None = None,
) -> None:
    """Computes a teacher's logits or features on every view of every image and writes them to a cache file.

    A view is what an augmentation makes of an image, named by a number. Two files are written: the array `path`, and a
    JSON file beside it with the suffix .json that describes it (key, shape, dtype and sha256). The array appears at
    `path` complete or not at all. The scratch file `.NAME.filling` beside it stays; `work` removes it when the job
    ends.

    Args:
        path: file to write, ending in `.npy`. The array has the shape [N * V, width], for N images in V views: the
            views of image 0, then those of image 1, and so on. The width is the number of classes for logits, and the
            number of features for features.
        key: the values that identify teacher, images, views and kind, as `cache.store.cache_key` returns them. They are
            written into the JSON file. A reader must have an equal key.
        teacher: network with the modules `features` (images [B,C,H,W] in [0,1] to features [B,D]) and `classifier` (a
            linear layer, features to logits [B,K]). It is moved to `device` and stays there.
        data: the training split, N images: `images` uint8 [N,C,H,W] and `labels` int64 [N], as `data.dataset.load`
            returns them.
        scheme: the V views of an image, such as `ViewScheme(padding=4, flips=True)`, all crops of the image padded by 4
            pixels and their mirror images.
        kind: `logits` or `features`.
        device: device of the computation.
        work: the saved progress of this job, a `resume.ResumableJob` that was entered as a context manager, so that
            batches computed before an interruption are not computed again. Progress is saved in intervals, and when the
            process is asked to stop. None: nothing is saved, and the job starts at the first batch.

    Raises:
        OSError: if the disk cannot hold the whole file.
        UserError: if a folder above `path` is a broken link.
    """
    width = {"logits": teacher.classifier.out_features, "features": teacher.classifier.in_features}[kind]
    teacher = teacher.to(device)
    dtype = str(next(teacher.parameters()).dtype).removeprefix("torch.")
    writer = Writer(path, key, (len(data), len(scheme), width), dtype, BATCH)
    if work:
        work.scratch = writer.scratch
        if saved := work.load():
            writer.resume(saved)
        work.set_snapshot(writer.progress)
    for batch in teacher_values(teacher, data, scheme, kind, device, len(writer.hashes)):
        writer.add(batch)
        if work and work.should_save():
            work.save(writer.progress())
    writer.finish()
