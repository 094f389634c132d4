"""scikit-learn's handwritten digits: 1,797 real images of 8x8 pixels with 17 grey levels, part of the package."""

from __future__ import annotations

from functools import cache

from robust_distillation.data.info import DataOptions, DatasetInfo
from robust_distillation.data.resizing import resized

FACTS = DatasetInfo(
    shape=(1, 8, 8),
    classes=tuple("0123456789"),
    flips=False,
    sizes={"train": 1000, "validation": 297, "test": 500},
    white=16,
)
SHUFFLE_SEED = 2021


def info(options: DataOptions) -> DatasetInfo:
    return FACTS.resized(options.size)


def check(options: DataOptions) -> None:
    """Nothing can be missing: the images lie in the package."""


def fetch(options: DataOptions) -> None:
    """Nothing can be missing."""


def read(split: str, options: DataOptions):
    """uint8 images [N,1,H,W] and int64 labels [N]; the splits cut one fixed shuffle (the file is sorted by writer)."""
    import numpy as np

    table = _table()
    order = np.random.RandomState(SHUFFLE_SEED).permutation(len(table))
    start = {"train": 0, "validation": 1000, "test": 1297}[split]
    chosen = table[order[start : start + FACTS.sizes[split]]]
    return resized(chosen[:, :64].reshape(-1, 1, 8, 8), options.size), chosen[:, 64].astype(np.int64)


@cache
def _table():
    """The file, where scikit-learn keeps it: importing sklearn.datasets would cost every job two seconds."""
    from importlib.util import find_spec
    from pathlib import Path

    import numpy as np

    file = Path(find_spec("sklearn").origin).parent / "datasets" / "data" / "digits.csv.gz"
    return np.loadtxt(file, delimiter=",", dtype=np.uint8)
