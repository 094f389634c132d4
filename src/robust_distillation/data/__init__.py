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

SHARED = (
    "cifar_batches",
    "dataset",
    "decoding",
    "extra",
    "info",
    "prepared",
    "published",
    "resizing",
    "splits",
    "views",
)
registry = Registry("dataset", __name__, exclude=SHARED, functions=("info", "check", "fetch", "read"))
names = registry.names


def info(name: str, options: DataOptions = DataOptions()) -> DatasetInfo:  # noqa: B008 (immutable)
    """Returns the image shape, classes and split sizes of a dataset, as read with `options`. Its files may be absent.

    Args:
        name: name of a dataset: `cifar10`, `cifar100`, `svhn`, `stl10`, `fashion_mnist`, `digits`, `digits_parity`,
            `image_folder` (your own images), or one that another package registers.
        options: a DataOptions: `folder` of the files, `size` to which images are resized, `download`, `verify`
            (checksums), `mirror` and `classes`. The default is the folder `data` and the original size.

    Returns:
        A DatasetInfo: `shape` (C,H,W), `classes` (their names), `sizes` (number of images by "train", "validation" and
        "test", None if unknown), `flips` (True if a mirrored image keeps its class) and `max_value` (the pixel value
        that stands for 1.0).

    Raises:
        UserError: if no dataset has this name, or if the dataset refuses the options or the files that exist.
    """
    return registry.module(name).info(options)
