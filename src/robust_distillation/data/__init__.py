"""Datasets: one module for each, found by its file name.

A module of a dataset defines four functions of `options` (DataOptions: folder, image size, download and checksum
options):

- `info(options)` returns shape, classes and split sizes. It needs neither torch nor the dataset's files.
- `check(options)` raises UserError if a file is missing and may not be downloaded. It reads no image and writes
  nothing.
- `fetch(options)` downloads or unpacks the missing files.
- `read(split, options)` returns uint8 images [N,C,H,W] and int64 labels [N], as torch tensors or NumPy arrays. `split`
  is "train", "validation" or "test".
"""

from __future__ import annotations

from robust_distillation.data.info import DataOptions, DatasetInfo
from robust_distillation.registry import Registry

__all__ = ["DataOptions", "DatasetInfo", "info", "names", "registry"]

SHARED = ("cifar_batches", "dataset", "decoding", "info", "prepared", "published", "resizing", "splits", "views")
registry = Registry("dataset", __name__, exclude=SHARED, functions=("info", "check", "fetch", "read"))
names = registry.names


def info(name: str, options: DataOptions = DataOptions()) -> DatasetInfo:  # noqa: B008 (immutable)
    """Returns the image shape, classes and split sizes of a dataset, as read with `options`. Its files may be absent.

    Args:
        name: name of the dataset, such as `cifar10`: the name of a module of this package, or of an entry point.
        options: folder, image size, checksum options and so on; the default is the folder `data` and the original size.

    Returns:
        Shape, class names and number of images of each split.

    Raises:
        UserError: if no dataset has this name, or if the dataset refuses the options or the files that exist.
    """
    return registry.module(name).info(options)
