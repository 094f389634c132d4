"""Fashion-MNIST (Xiao et al., 2017): 28x28 grey images, read by torchvision from FOLDER/FashionMNIST/raw.

The files come from Debian's package dataset-fashion-mnist where it is installed, else from torchvision's download. The
last 5,000 training images are the validation split.
"""

from __future__ import annotations

import gzip
from pathlib import Path

from robust_distillation.data.info import DatasetInfo
from robust_distillation.errors import UserError
from robust_distillation.files import replacing

INFO = DatasetInfo(
    shape=(1, 28, 28),
    classes=("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    flips=True,
    sizes={"train": 55000, "validation": 5000, "test": 10000},
)
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FILES = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


def missing(folder: str) -> list[Path]:
    raw = Path(folder) / "FashionMNIST" / "raw"
    return [raw / name for name in FILES if not (raw / name).is_file()]


def check(folder: str, download: bool) -> None:
    """Raises UserError where files are missing and may not be fetched. Reads nothing, writes nothing."""
    absent = missing(folder)
    if absent and not download and not DEBIAN.is_dir():
        raise UserError(
            f"dataset fashion_mnist: {absent[0]} is missing. Put the four files there unpacked, or install Debian's "
            "package dataset-fashion-mnist, or set dataset.download: true"
        )


def fetch(folder: str) -> None:
    """Places the files where they are missing."""
    if not missing(folder):
        return
    if DEBIAN.is_dir():
        for path in missing(folder):
            with replacing(path) as temporary:
                temporary.write_bytes(gzip.decompress((DEBIAN / f"{path.name}.gz").read_bytes()))
        return
    from torchvision.datasets import FashionMNIST

    try:
        FashionMNIST(folder, download=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"dataset fashion_mnist: the download failed ({error}). Put {', '.join(FILES)} into "
            f"{Path(folder) / 'FashionMNIST' / 'raw'}, or install Debian's package dataset-fashion-mnist"
        ) from error


def read(split: str, folder: str):
    """uint8 images [N,1,28,28] and int64 labels [N]."""
    from torchvision.datasets import FashionMNIST

    fetch(folder)
    try:
        whole = FashionMNIST(folder, train=split != "test")
    except Exception as error:  # torchvision raises whatever its parser meets in a broken file
        raise UserError(
            f"dataset fashion_mnist: the files under {folder}/FashionMNIST/raw cannot be read ({error}). Remove them; "
            "the next start fetches them again"
        ) from error
    images, labels = whole.data[:, None], whole.targets.long()
    if split == "test":
        return images, labels
    cut = INFO.sizes["train"]
    part = slice(0, cut) if split == "train" else slice(cut, None)
    return images[part], labels[part]
