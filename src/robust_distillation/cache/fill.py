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
    """Computes a teacher's logits or features on every view of every image, in batches.

    Args:
        teacher: network with `features(x)` and `classifier(features)`, on `device`. It is in eval mode meanwhile and
            returns unchanged.
        data: the training split, N images.
        scheme: the V views of an image.
        kind: `logits` or `features`.
        device: device of the computation.
        first_batch: number of the batch to begin with.

    Yields:
        Tensors [B,width] in the dtype of the teacher's parameters, B = 512 except in the last batch. The rows of all
        batches together are image 0 in views 0 to V - 1, then image 1, and so on: N * V rows.
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

    The file appears at `path` complete or not at all. Beside it lies a JSON file that says what it is the cache of.

    Args:
        path: file to write, ending in `.npy`: an array [N * V, width], N images in V views.
        key: what the values depend on, see `cache_key`. A reader must ask for the same key.
        teacher: network with `features(x)` and `classifier(features)`.
        data: the training split.
        scheme: the views of an image.
        kind: `logits` or `features`.
        device: device of the computation.
        work: resumable state of this job: batches that an earlier process computed are not computed again.
            None: the job starts at the first batch.
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
