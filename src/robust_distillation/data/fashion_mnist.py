"""Fashion-MNIST (Xiao et al., 2017): 28x28 grey images, from FOLDER/FashionMNIST/raw as torchvision keeps them.

The files come from Debian's package dataset-fashion-mnist where it is installed and no mirror is named, else from a
download. torchvision knows checksums of the packed files only, so of unpacked ones the sizes alone are compared. The
last 5,000 training images are the validation split.
"""

from __future__ import annotations

import gzip
from math import prod
from pathlib import Path

from robust_distillation.data.info import DataOptions, DatasetInfo
from robust_distillation.data.published import Published, Source
from robust_distillation.data.resizing import resized
from robust_distillation.files import replacing

FACTS = DatasetInfo(
    shape=(1, 28, 28),
    classes=("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    flips=True,
    sizes={"train": 55000, "validation": 5000, "test": 10000},
)
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
MD5_PACKED = {
    "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
}
TRAIN, TRAIN_LABELS, TEST, TEST_LABELS = MD5_PACKED
FILES = Published(
    "fashion_mnist",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    tuple(Source(f"{name}.gz", md5, (name,)) for name, md5 in MD5_PACKED.items()),
    below="FashionMNIST/raw",
)


def check(options: DataOptions) -> None:
    """As Published.check; nothing is missing where Debian's package is there."""
    if not _from_debian(options):
        FILES.check(options, otherwise=", or install Debian's package dataset-fashion-mnist")


def fetch(options: DataOptions) -> None:
    """Places the files where they are missing."""
    if _from_debian(options):
        for path in FILES.missing(options):
            with replacing(path) as temporary:
                temporary.write_bytes(gzip.decompress((DEBIAN / f"{path.name}.gz").read_bytes()))
    check(options)
    FILES.fetch(options)


def info(options: DataOptions) -> DatasetInfo:
    return FILES.described(FACTS, options, [TRAIN], TEST, _count)


def read(split: str, options: DataOptions):
    """uint8 images [N,1,H,W] and int64 labels [N]."""
    import numpy as np

    names = (TEST, TEST_LABELS) if split == "test" else (TRAIN, TRAIN_LABELS)
    images, labels = (_array(FILES.verified(name, options)) for name in names)
    with FILES.reading(FILES.place(options)):
        if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
            raise ValueError(f"images {images.shape} and labels {labels.shape} do not fit")
    chosen = FILES.part(split, len(labels), FACTS, options)
    return resized(images[chosen, None], options.size), labels[chosen].astype(np.int64)


def _from_debian(options: DataOptions) -> bool:
    return options.mirror is None and DEBIAN.is_dir()


def _header(path: Path) -> tuple[int, ...]:
    """The shape in the header of an idx file of bytes: two zeros, type 8, how many axes, and each axis as a number of
    four bytes, the highest first (LeCun's MNIST page)."""
    with open(path, "rb") as stream:
        start = stream.read(4)
        if len(start) < 4 or start[:3] != b"\0\0\x08" or start[3] not in (1, 3):
            raise ValueError("it is no idx file of bytes")
        axes = [stream.read(4) for _ in range(start[3])]
    shape = tuple(int.from_bytes(axis, "big") for axis in axes)
    found = path.stat().st_size - 4 - 4 * len(shape)
    if found != prod(shape):
        raise ValueError(f"it holds {found} bytes, its header says {shape}")
    return shape


def _array(path: Path):
    import numpy as np

    with FILES.reading(path):
        shape = _header(path)
        return np.fromfile(path, dtype=np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def _count(path: Path) -> int:
    """How many images a file holds, read from its header."""
    return _header(path)[0]
