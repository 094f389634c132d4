"""One's own images: FOLDER/train/CLASS/* and FOLDER/test/CLASS/*, all brought to the size asked for.

Classes are the names of the folders, sorted. Each split is shuffled by a fixed seed, so that its first images are of
all classes. The validation split is FOLDER/validation/CLASS/* where that exists, else the last tenth of the shuffled
training images. Files that are no images by their suffix, hidden ones and folders in class folders are passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from robust_distillation.data import splits
from robust_distillation.data.decoding import SUFFIXES, decoded
from robust_distillation.data.info import SPLITS, DataOptions, DatasetInfo
from robust_distillation.errors import MOST, UserError, shown

SHUFFLE_SEED = 2021
LAYOUT = "Put the images into {folder}/train/CLASS/ and {folder}/test/CLASS/"


def info(options: DataOptions) -> DatasetInfo:
    """From the names of the files; from `options.classes`, without sizes, where the folder is not there yet."""
    size = _size(options)
    if _there(options):
        files = _files(options)
        classes = tuple(files["train"])
        counts = {split: sum(map(len, found.values())) for split, found in files.items()}
        if "validation" not in counts:
            counts = splits.sizes(counts["train"], counts["test"])
    elif options.classes:
        classes, counts = tuple(sorted(set(options.classes))), dict.fromkeys(SPLITS)
    else:
        raise UserError(f"{_missing(options)}, or, to plan without the images, name the classes in dataset.classes")
    return DatasetInfo((3, size, size), classes, flips=True, sizes=counts)


def check(options: DataOptions) -> None:
    """Raises UserError where the folder is not there or not laid out as needed. Reads no image, writes nothing."""
    fetch(options)
    _files(options)


def fetch(options: DataOptions) -> None:
    """Raises UserError where the folder is not there: these images cannot be fetched from anywhere."""
    _size(options)
    if not _there(options):
        raise UserError(_missing(options))


def read(split: str, options: DataOptions):
    """uint8 images [N,3,size,size] and int64 labels [N]."""
    import numpy as np

    files = _files(options)
    folder = "train" if split == "validation" and "validation" not in files else split
    names = [(f"{name}/{file}", label) for label, (name, found) in enumerate(files[folder].items()) for file in found]
    order = np.random.RandomState(SHUFFLE_SEED).permutation(len(names))
    images = decoded(Path(options.folder) / folder, [names[i][0] for i in order], _size(options))
    labels = np.array([names[i][1] for i in order], dtype=np.int64)
    if folder == "train" and "validation" not in files:
        chosen = splits.part(split, len(names))
        return images[chosen], labels[chosen]
    return images, labels


def _size(options: DataOptions) -> int:
    if options.size is None:
        raise UserError("dataset.size: an image_folder needs it, the side in pixels to which every image is brought")
    return options.size


def _there(options: DataOptions) -> bool:
    return (Path(options.folder) / "train").is_dir()


def _missing(options: DataOptions) -> str:
    where = Path(options.folder)
    return f"dataset image_folder: {where / 'train'} is missing. {LAYOUT.format(folder=where)}"


def _files(options: DataOptions) -> dict[str, dict[str, list[str]]]:
    """The image files of each class in each of the folders train, validation (where it exists) and test, sorted.

    Raises UserError where the folders do not fit each other or `options.classes`, or lead out of FOLDER.
    """
    top = Path(options.folder)
    found = {split: _classes(top, top / split) for split in SPLITS if split != "validation" or (top / split).is_dir()}
    for split, classes in found.items():
        _same(top / split, classes, top / "train", found["train"])
    if options.classes:
        _same("dataset.classes", options.classes, top / "train", found["train"])
    if len(found["train"]) < 2:
        raise UserError(f"dataset image_folder: {top / 'train'} holds fewer than two class folders")
    for split, classes in found.items():
        for name, files in classes.items():
            if not files:
                raise UserError(f"dataset image_folder: {top / split / name} holds no image")
    return found


def _classes(top: Path, folder: Path) -> dict[str, list[str]]:
    if not folder.is_dir():
        raise UserError(f"dataset image_folder: {folder} is missing. {LAYOUT.format(folder=top)}")
    _stays(top, folder)
    classes = {}
    for entry in _listed(folder):
        if entry.is_symlink():
            _stays(top, Path(entry.path))
        if entry.is_dir():
            classes[entry.name] = _images(top, entry.path)
    return classes


def _images(top: Path, folder: str) -> list[str]:
    names = []
    for entry in _listed(folder):
        if entry.name.lower().endswith(SUFFIXES):
            if entry.is_symlink():
                _stays(top, Path(entry.path))
            if entry.is_file():
                names.append(entry.name)
    return names


def _listed(folder: str | Path) -> list[os.DirEntry]:
    """What is not hidden in a folder, sorted by name."""
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)


def _stays(top: Path, path: Path) -> None:
    if not path.resolve().is_relative_to(top.resolve()):
        raise UserError(
            f"dataset image_folder: {path} leads out of {top}, to {path.resolve()}. Put the files themselves there"
        )


def _same(where: object, found: Iterable[str], elsewhere: object, expected: Iterable[str]) -> None:
    odd = sorted(set(found) ^ set(expected))
    if odd:
        more = f" and {len(odd) - MOST} more" if len(odd) > MOST else ""
        raise UserError(
            f"dataset image_folder: {where} and {elsewhere} differ in these classes: "
            f"{', '.join(map(shown, odd[:MOST]))}{more}"
        )
