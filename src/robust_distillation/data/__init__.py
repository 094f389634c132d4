"""The datasets: one file each.

A dataset's module has `info(options)`, which needs neither torch nor the files; `check(options)`, which raises
UserError where files are missing and may not be fetched, reads no image and writes nothing; `fetch(options)`, which
places missing files; and `read(split, options)`, which returns uint8 images [N,C,H,W] and int64 labels [N].
"""

from __future__ import annotations

from robust_distillation.data.info import DataOptions, DatasetInfo
from robust_distillation.registry import Registry

__all__ = ["DataOptions", "DatasetInfo", "info", "names", "registry"]

SHARED = ("cifar_batches", "dataset", "decoding", "info", "prepared", "published", "resizing", "splits", "views")
registry = Registry("dataset", __name__, besides=SHARED)
names = registry.names


def info(name: str, options: DataOptions = DataOptions()) -> DatasetInfo:  # noqa: B008 (immutable)
    """Shape, classes, flips and sizes of a dataset as `options` read it."""
    return registry.module(name).info(options)
