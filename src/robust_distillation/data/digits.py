"""scikit-learn's handwritten digits: 1,797 real images of 8x8 pixels with 17 grey levels, part of the package itself."""

from __future__ import annotations

from robust_distillation.data.info import DatasetInfo

INFO = DatasetInfo(
    shape=(1, 8, 8),
    classes=tuple("0123456789"),
    flips=False,
    sizes={"train": 1000, "validation": 297, "test": 500},
    white=16,
)
SHUFFLE_SEED = 2021


def read(split: str, folder: str):
    """uint8 images [N,1,8,8] and int64 labels [N]; the splits cut one fixed shuffle (the file is sorted by writer)."""
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.RandomState(SHUFFLE_SEED).permutation(len(digits.target))
    start = {"train": 0, "validation": 1000, "test": 1297}[split]
    chosen = order[start : start + INFO.sizes[split]]
    return digits.images[chosen, None].astype(np.uint8), digits.target[chosen].astype(np.int64)


def check(folder: str, download: bool) -> None:
    """Nothing can be missing: the images lie in the package."""
