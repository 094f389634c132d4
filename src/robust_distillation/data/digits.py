"""Handwritten digits of scikit-learn: 1,797 real images of 8x8 pixels with 17 grey levels, part of that package."""

from __future__ import annotations

from functools import cache

from robust_distillation.data.info import DataOptions, DatasetInfo
from robust_distillation.data.resizing import resize

INFO = DatasetInfo(
    shape=(1, 8, 8),
    classes=tuple("0123456789"),
    flips=False,
    sizes={"train": 1000, "validation": 297, "test": 500},
    max_value=16,
)
SHUFFLE_SEED = 2021


def info(options: DataOptions) -> DatasetInfo:
    """Returns image shape, classes and split sizes of the digits, as read with `options`.

    Args:
        options: a DataOptions; only `size` is used: the side in pixels to which images are resized, None to keep their
            size.

    Returns:
        A DatasetInfo. Shape (1,H,W), the ten class names, 1,000 training, 297 validation and 500 test images, and the
        largest pixel value, 16. H and W are `options.size`, or 8 if it is None.
    """
    return INFO.with_size(options.size)


def check(options: DataOptions) -> None:
    """Does nothing, because the images are part of scikit-learn and cannot be missing.

    Args:
        options: a DataOptions; not used.
    """


def fetch(options: DataOptions) -> None:
    """Does nothing, because the images are part of scikit-learn and need no download.

    Args:
        options: a DataOptions; not used.
    """


def read(split: str, options: DataOptions):
    """Reads one split.

    The splits are consecutive parts of one fixed shuffle, because scikit-learn's file is sorted by writer.

    Args:
        split: "train", "validation" or "test".
        options: a DataOptions; only `size` is used: the side in pixels to which images are resized, None to keep their
            size.

    Returns:
        A pair (images, labels): a torch tensor of images, uint8 [N,1,H,W] with values from 0 to 16, and a NumPy array
        of labels, int64 [N]. H and W are `options.size`, or 8 if it is None.
    """
    import numpy as np

    table = _table()
    order = np.random.RandomState(SHUFFLE_SEED).permutation(len(table))
    start = {"train": 0, "validation": 1000, "test": 1297}[split]
    rows = table[order[start : start + INFO.sizes[split]]]
    return resize(rows[:, :64].reshape(-1, 1, 8, 8), options.size), rows[:, 64].astype(np.int64)


@cache
def _table():
    """Reads scikit-learn's file: uint8 [1797,65], 64 pixels and the label in each row.

    sklearn.datasets is not imported because its import would cost every job two seconds.
    """
    from importlib.util import find_spec
    from pathlib import Path

    import numpy as np

    file = Path(find_spec("sklearn").origin).parent / "datasets" / "data" / "digits.csv.gz"
    return np.loadtxt(file, delimiter=",", dtype=np.uint8)
