"""Fills the cache: one pass of the teacher over every view of every training image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robust_distillation.cache.store import Writer
from robust_distillation.data.dataset import Dataset
from robust_distillation.data.views import ViewScheme
from robust_distillation.models.frozen import frozen
from robust_distillation.models.output import output
from robust_distillation.resume import Work

BATCH = 512


def rows(
    teacher: nn.Module,
    data: Dataset,
    scheme: ViewScheme,
    kind: str,
    device: torch.device | str = "cpu",
    first: int = 0,
) -> Iterator[Tensor]:
    """The teacher's `logits` or `features` in its own precision, image by image and, within one, view by view, from
    batch `first` on."""
    dtype = next(teacher.parameters()).dtype
    positions = torch.arange(len(data) * len(scheme))
    with frozen(teacher), torch.no_grad():
        for part in positions.split(BATCH)[first:]:
            x = data.views(scheme, part // len(scheme), part % len(scheme)).to(device, dtype)
            yield getattr(output(teacher, x), kind)


def fill_cache(
    path: str | Path,
    key: dict[str, Any],
    teacher: nn.Module,
    data: Dataset,
    scheme: ViewScheme,
    kind: str,
    device: torch.device | str = "cpu",
    work: Work | None = None,
) -> None:
    """Goes on after the batches that `work` knows."""
    width = {"logits": teacher.classifier.out_features, "features": teacher.classifier.in_features}[kind]
    teacher = teacher.to(device)
    dtype = str(next(teacher.parameters()).dtype).removeprefix("torch.")
    writer = Writer(path, key, (len(data), len(scheme), width), dtype, BATCH)
    if work:
        work.scratch = writer.scratch
        if saved := work.load():
            writer.go_on(saved)
        work.at_any_time(writer.saved)
    for batch in rows(teacher, data, scheme, kind, device, len(writer.hashes)):
        writer.add(batch)
        if work and work.due():
            work.save(writer.saved())
    writer.finish()
