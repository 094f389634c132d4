"""Fashion-MNIST (Xiao et al., 2017): 28x28 grey images, read from FOLDER/FashionMNIST/raw as torchvision stores them.

The files are taken from Debian's package dataset-fashion-mnist if it is installed and no mirror is set, else
downloaded. torchvision publishes checksums of the compressed files only. For unpacked files only the sizes are
compared. The last 5,000 training images are the validation split.
"""

from __future__ import annotations

import gzip
from math import prod
from pathlib import Path

from robust_distillation.data.info import DataOptions, DatasetInfo
from robust_distillation.data.published import Download, PublishedFiles
from robust_distillation.data.resizing import resize
from robust_distillation.files import atomic_write

INFO = DatasetInfo(
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
FILES = PublishedFiles(
    "fashion_mnist",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    tuple(Download(f"{name}.gz", md5, (name,)) for name, md5 in MD5_PACKED.items()),
    below="FashionMNIST/raw",
)


def check(options: DataOptions) -> None:
    """Checks that every file exists or can be fetched. Reads no image and writes nothing.

    If Debian's package dataset-fashion-mnist is installed and `options.mirror` is None, nothing is missing.

    Args:
        options: fields of DataOptions: `folder` of the files, `download` (whether missing files may be downloaded) and
            `mirror` (base URL to download from; None: the original server).

    Raises:
        UserError: if a file is missing, Debian's package is not installed and `options.download` is False, or if
            `options.mirror` is not a web address.
    """
    if not _from_debian(options):
        FILES.check(options, otherwise=", or install Debian's package dataset-fashion-mnist")


def fetch(options: DataOptions) -> None:
    """Unpacks the missing files, from Debian's package or from a download, into `options.folder`/FashionMNIST/raw.

    Debian's package dataset-fashion-mnist is used if it is installed and `options.mirror` is None.

    Args:
        options: fields of DataOptions: `folder` of the files, `download` (whether missing files may be downloaded),
            `mirror` (base URL to download from; None: the original server), and `verify`: whether the checksums of
            downloaded files are compared with the published ones.

    Raises:
        UserError: if a file is missing and may not be downloaded, if a download fails, or if a downloaded file is
            broken or has the wrong checksum.
        OSError: if a file of Debian's package is missing or broken.
    """
    if _from_debian(options):
        for path in FILES.missing(options):
            with atomic_write(path) as temporary:
                temporary.write_bytes(gzip.decompress((DEBIAN / f"{path.name}.gz").read_bytes()))
    check(options)
    FILES.fetch(options)


def info(options: DataOptions) -> DatasetInfo:
    """Returns image shape, classes and split sizes of Fashion-MNIST, as read with `options`. The files may be absent.

    Args:
        options: fields of DataOptions: `folder` of the files, `size` of the images, and `verify`: False for your own
            files in the same format.

    Returns:
        A DatasetInfo. Shape (1,H,W), class names, and number of images of each split. H and W are `options.size`, or 28
        if it is None. The split sizes are the published ones, 55,000 / 5,000 / 10,000 for train, validation and test.
        If `options.verify` is False and all files exist, the images in the files are counted. The validation split is
        then the last 5,000 training images if there are 60,000 of them, else the last tenth.

    Raises:
        UserError: if `options.verify` is False and a file is broken or holds fewer than two training images.
    """
    return FILES.adapted_info(INFO, options, [TRAIN], TEST, _count)


def read(split: str, options: DataOptions):
    """Reads one split from the files in `options.folder`, which must exist: `fetch` makes them.

    Args:
        split: "train", "validation" or "test".
        options: fields of DataOptions: `folder` of the files and `size` of the returned images.

    Returns:
        A pair (images, labels): a torch tensor of images, uint8 [N,1,H,W], and a NumPy array of labels, int64 [N]. H
        and W are `options.size`, or 28 if it is None.

    Raises:
        UserError: if a file is missing or broken, or if images and labels do not fit each other. No checksums are
            compared, because none are published for the unpacked files.
    """
    import numpy as np

    names = (TEST, TEST_LABELS) if split == "test" else (TRAIN, TRAIN_LABELS)
    images, labels = (_array(FILES.verified_path(name, options)) for name in names)
    with FILES.reading_errors(FILES.folder(options)):
        if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
            raise ValueError(f"images {images.shape} and labels {labels.shape} do not fit")
    rows = FILES.split_slice(split, len(labels), INFO, options)
    return resize(images[rows, None], options.size), labels[rows].astype(np.int64)


def _from_debian(options: DataOptions) -> bool:
    """Returns whether the files are taken from Debian's package."""
    return options.mirror is None and DEBIAN.is_dir()


def _header(path: Path) -> tuple[int, ...]:
    """Reads the shape in the header of an idx file of bytes. Raises ValueError for any other file.

    The header has two zero bytes, the type 8, the number of axes, and the length of each axis as a big-endian number of
    four bytes (LeCun's MNIST page).
    """
    with open(path, "rb") as stream:
        start = stream.read(4)
        if len(start) < 4 or start[:3] != b"\0\0\x08" or start[3] not in (1, 3):
            raise ValueError("it is no idx file of bytes")
        axes = [stream.read(4) for _ in range(start[3])]
    shape = tuple(int.from_bytes(axis, "big") for axis in axes)
    count = path.stat().st_size - 4 - 4 * len(shape)
    if count != prod(shape):
        raise ValueError(f"it holds {count} bytes, its header says {shape}")
    return shape


def _array(path: Path):
    """Reads an idx file of bytes as a uint8 array. Raises UserError for a broken file."""
    import numpy as np

    with FILES.reading_errors(path):
        shape = _header(path)
        return np.fromfile(path, dtype=np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def _count(path: Path) -> int:
    """Returns the number of images in a file, read from its header."""
    return _header(path)[0]
