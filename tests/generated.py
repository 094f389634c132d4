"""Small generated datasets in the formats of the real ones: `python tests/generated.py FOLDER` writes all of them.

Each class has a pattern of its own, coarse and under noise, so that a small network learns it, also robustly. The
patterns depend on the class alone; `seed` moves the order of the classes and the noise. Read them with `verify: false`.
"""

from __future__ import annotations

import pickle
import struct
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

COARSE = 4  # patches along a side of a pattern
NOISE = 25.0  # grey levels


def examples(count: int, classes: int, shape: tuple[int, int, int], rng: np.random.Generator):
    """uint8 images [N,C,H,W] and int64 labels [N]; every class as often as any other, as far as `count` allows."""
    labels = rng.permutation(np.arange(count) % classes)
    patterns = np.stack([_pattern(label, shape) for label in range(classes)])
    images = patterns[labels] + rng.normal(0, NOISE, (count, *shape))
    return images.clip(0, 255).astype(np.uint8), labels


def _pattern(label: int, shape: tuple[int, int, int]) -> np.ndarray:
    channels, height, width = shape
    patches = np.random.default_rng([label, channels]).uniform(40, 216, (channels, COARSE, COARSE))
    rows, columns = (np.arange(side) * COARSE // side for side in (height, width))
    return patches[:, rows[:, None], columns]


def cifar10_files(folder: Path, train: int = 200, test: int = 60, seed: int = 0) -> Path:
    """FOLDER/cifar-10-batches-py; `train` images in five files."""
    rng, place = np.random.default_rng(seed), Path(folder) / "cifar-10-batches-py"
    images, labels = examples(train, 10, (3, 32, 32), rng)
    for number, part in enumerate(np.array_split(np.arange(train), 5), start=1):
        _batch(place / f"data_batch_{number}", images[part], {"labels": labels[part]})
    images, labels = examples(test, 10, (3, 32, 32), rng)
    _batch(place / "test_batch", images, {"labels": labels})
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (place / "batches.meta").write_bytes(pickle.dumps({"label_names": names}, protocol=2))
    return Path(folder)


def cifar100_files(folder: Path, train: int = 300, test: int = 100, seed: int = 0) -> Path:
    """FOLDER/cifar-100-python; the coarse labels are there but mean nothing."""
    rng, place = np.random.default_rng(seed), Path(folder) / "cifar-100-python"
    for name, count in (("train", train), ("test", test)):
        images, labels = examples(count, 100, (3, 32, 32), rng)
        _batch(place / name, images, {"fine_labels": labels, "coarse_labels": labels % 20})
    names = [f"class {label}" for label in range(100)]
    (place / "meta").write_bytes(pickle.dumps({"fine_label_names": names}, protocol=2))
    return Path(folder)


def _batch(path: Path, images: np.ndarray, labels: dict[str, np.ndarray]) -> None:
    content = {"data": images.reshape(len(images), -1), **{key: value.tolist() for key, value in labels.items()}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))


def svhn_files(folder: Path, train: int = 200, test: int = 60, seed: int = 0) -> Path:
    """FOLDER/train_32x32.mat and test_32x32.mat; there the digit 0 is the label 10."""
    rng = np.random.default_rng(seed)
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, count in (("train", train), ("test", test)):
        images, labels = examples(count, 10, (3, 32, 32), rng)
        labels = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        savemat(
            Path(folder) / f"{name}_32x32.mat", {"X": images.transpose(2, 3, 1, 0), "y": labels}, do_compression=True
        )
    return Path(folder)


def stl10_files(folder: Path, train: int = 100, test: int = 40, seed: int = 0) -> Path:
    """FOLDER/stl10_binary, without the unlabelled images; labels from 1, pixels down the columns."""
    rng, place = np.random.default_rng(seed), Path(folder) / "stl10_binary"
    place.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", train), ("test", test)):
        images, labels = examples(count, 10, (3, 96, 96), rng)
        (place / f"{name}_X.bin").write_bytes(images.swapaxes(2, 3).tobytes())
        (place / f"{name}_y.bin").write_bytes((labels + 1).astype(np.uint8).tobytes())
    return Path(folder)


def fashion_mnist_files(folder: Path, train: int = 200, test: int = 60, seed: int = 0) -> Path:
    """FOLDER/FashionMNIST/raw."""
    rng, place = np.random.default_rng(seed), Path(folder) / "FashionMNIST" / "raw"
    place.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", train), ("t10k", test)):
        images, labels = examples(count, 10, (1, 28, 28), rng)
        for kind, array in (("images-idx3", images[:, 0]), ("labels-idx1", labels.astype(np.uint8))):
            header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            (place / f"{name}-{kind}-ubyte").write_bytes(header + array.tobytes())
    return Path(folder)


def image_folder_files(
    folder: Path,
    classes: tuple[str, ...] = ("apple", "bird", "chair"),
    train: int = 60,
    test: int = 24,
    validation: int = 0,
    size: tuple[int, int] = (40, 32),
    suffix: str = ".png",
    seed: int = 0,
) -> Path:
    """FOLDER/{train,test}/CLASS/NUMBER.png, and FOLDER/validation where `validation` > 0. size: height and width."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("validation", validation), ("test", test)):
        images, labels = examples(count, len(classes), (3, *size), rng)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = Path(folder) / split / classes[label] / f"{number:05d}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.transpose(1, 2, 0)).save(path)
    return Path(folder)


def published_weights(folder: Path) -> None:
    """Narrow networks under the published names: TRADES' with `module.` and its unused block, DeepMind's as it is."""
    import torch

    from robust_distillation.models.checkpoint import build_model

    trades = build_model({"name": "wide_resnet", "depth": 10, "width": 1}, (3, 32, 32), 10).state_dict()
    trades |= {
        name.replace("block1", "sub_block1"): value for name, value in trades.items() if name.startswith("block1")
    }
    torch.save({f"module.{name}": value for name, value in trades.items()}, folder / "trades.pt")
    wide = build_model({"name": "wide_resnet", "depth": 10, "width": 1}, (3, 32, 32), 100).state_dict()
    torch.save(wide, folder / "trades100.pt")
    for name, classes in (("deepmind.pt", 10), ("deepmind100.pt", 100)):
        model = build_model({"name": "dm_wide_resnet", "depth": 10, "width": 1}, (3, 32, 32), classes)
        torch.save(model.state_dict(), folder / name)


def all_files(folder: Path) -> None:
    for write in (cifar10_files, cifar100_files, svhn_files, stl10_files, fashion_mnist_files):
        write(folder)
    image_folder_files(Path(folder) / "images")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} FOLDER")
    all_files(Path(sys.argv[1]))
    print(f"{sys.argv[1]}: cifar10, cifar100, svhn, stl10, fashion_mnist, and an image_folder in images/")
