"""Fills the cache: one pass of the teacher over every view of every training image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robust_distillation.cache.store import write_cache
from robust_distillation.data.dataset import Dataset
from robust_distillation.data.views import ViewScheme
from robust_distillation.models.frozen import frozen
from robust_distillation.models.output import output

BATCH = 512


def rows(
    teacher: nn.Module, data: Dataset, scheme: ViewScheme, kind: str, device: torch.device | str = "cpu"
) -> Iterator[Tensor]:
    """The teacher's `logits` or `features` in its own precision, image by image and, within one, view by view."""
    dtype = next(teacher.parameters()).dtype
    positions = torch.arange(len(data) * len(scheme))
    with frozen(teacher), torch.no_grad():
        for part in positions.split(BATCH):
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
) -> None:
    width = {"logits": teacher.classifier.out_features, "features": teacher.classifier.in_features}[kind]
    write_cache(path, key, (len(data), len(scheme), width), rows(teacher.to(device), data, scheme, kind, device))
