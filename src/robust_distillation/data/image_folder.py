"""Your own images: FOLDER/train/CLASS/* and FOLDER/test/CLASS/*, all resized to `dataset.size`.

The classes are the names of the class folders, sorted. Each split is shuffled with a fixed seed, so that its first
images come from all classes. The validation split is FOLDER/validation/CLASS/* if that folder exists, else the last
tenth of the shuffled training images. In a class folder, files without an image suffix, hidden files and subfolders are
ignored.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from robust_distillation.data import splits
from robust_distillation.data.decoding import check_inside, entries, image_names, load_images
from robust_distillation.data.info import SPLITS, DataOptions, DatasetInfo
from robust_distillation.errors import MAX_NAMES, UserError, short_repr

SHUFFLE_SEED = 2021
LAYOUT = "Put the images into {folder}/train/CLASS/ and {folder}/test/CLASS/"


def info(options: DataOptions) -> DatasetInfo:
    """Returns image shape, classes and split sizes, without reading an image.

    Args:
        options: fields of DataOptions: `folder` (FOLDER below), `size` (side in pixels of the images) and `classes`
            (their names; empty: the names of the class folders).

    Returns:
        A DatasetInfo. Shape (3,size,size), class names and number of images of each split. If FOLDER/train exists,
        classes and sizes follow from the names of the image files. Otherwise the classes are `options.classes`, sorted,
        and all sizes are None.

    Raises:
        UserError: if `options.size` is None, if FOLDER/train is missing and `options.classes` is empty, or if
            FOLDER/train exists and the folders are not as `check` requires.
    """
    size = _size(options)
    if _exists(options):
        files = _files(options)
        classes = tuple(files["train"])
        counts = {split: sum(map(len, by_class.values())) for split, by_class in files.items()}
        if "validation" not in counts:
            counts = splits.sizes(counts["train"], counts["test"])
    elif options.classes:
        classes, counts = tuple(sorted(set(options.classes))), dict.fromkeys(SPLITS)
    else:
        raise UserError(f"{_missing(options)}, or, to plan without the images, name the classes in dataset.classes")
    return DatasetInfo((3, size, size), classes, flips=True, sizes=counts)


def check(options: DataOptions) -> None:
    """Checks that FOLDER has a folder for each split, with one folder of images for each class in it.

    FOLDER is `options.folder`. No image is read and nothing is written.

    Args:
        options: fields of DataOptions: `folder`, `size` (must be set) and `classes` (the names of the classes; empty:
            the names of the class folders).

    Raises:
        UserError: if `options.size` is None, if FOLDER/train or FOLDER/test is missing, if there are fewer than two
            classes, if a class has no image, if the splits have different classes, if these are not `options.classes`
            (unless that is empty), or if a link leads out of FOLDER.
    """
    fetch(options)
    _files(options)


def fetch(options: DataOptions) -> None:
    """Checks that `options.folder`/train exists. Downloads nothing, for these images are your own.

    Args:
        options: fields of DataOptions: `folder`, and `size` (side in pixels of the images; must be set).

    Raises:
        UserError: if the folder is missing or `options.size` is None.
    """
    _size(options)
    if not _exists(options):
        raise UserError(_missing(options))


def read(split: str, options: DataOptions):
    """Reads one split from the files in `options.folder`, in a fixed random order.

    Decoded images are kept in data/decoded in the working directory, and later calls read them from there.

    Args:
        split: "train", "validation" or "test".
        options: fields of DataOptions: `folder`, `size` (side in pixels of the returned images) and `classes` (the
            names of the classes; empty: the names of the class folders).

    Returns:
        A pair of NumPy arrays: images, uint8 [N,3,size,size] in RGB, and labels, int64 [N], by the sorted class names.

    Raises:
        UserError: if the folders are not as `check` requires, or if a file is not a readable image.
    """
    import numpy as np

    files = _files(options)
    folder = "train" if split == "validation" and "validation" not in files else split
    names = [(f"{name}/{file}", label) for label, (name, paths) in enumerate(files[folder].items()) for file in paths]
    order = np.random.RandomState(SHUFFLE_SEED).permutation(len(names))
    images = load_images(Path(options.folder) / folder, [names[i][0] for i in order], _size(options))
    labels = np.array([names[i][1] for i in order], dtype=np.int64)
    if folder == "train" and "validation" not in files:
        rows = splits.split_slice(split, len(names))
        return images[rows], labels[rows]
    return images, labels


def _size(options: DataOptions) -> int:
    """Returns `options.size`. Raises UserError if it is None."""
    if options.size is None:
        raise UserError("dataset.size: an image_folder needs it. Set it to the side in pixels of the resized images")
    return options.size


def _exists(options: DataOptions) -> bool:
    return (Path(options.folder) / "train").is_dir()


def _missing(options: DataOptions) -> str:
    """Returns the message for a missing folder."""
    folder = Path(options.folder)
    return f"dataset image_folder: {folder / 'train'} is missing. {LAYOUT.format(folder=folder)}"


def _files(options: DataOptions) -> dict[str, dict[str, list[str]]]:
    """Lists the image files: split -> class -> sorted file names. "validation" is absent if its folder does not exist.

    Raises UserError if the splits have different classes, if these are not `options.classes`, if there are fewer than
    two classes, if a class has no image, or if a link leads out of FOLDER.
    """
    top = Path(options.folder)
    files = {split: _classes(top, top / split) for split in SPLITS if split != "validation" or (top / split).is_dir()}
    for split, classes in files.items():
        _check_same_classes(top / split, classes, top / "train", files["train"])
    if options.classes:
        _check_same_classes("dataset.classes", options.classes, top / "train", files["train"])
    if len(files["train"]) < 2:
        raise UserError(f"dataset image_folder: {top / 'train'} holds fewer than two class folders")
    for split, classes in files.items():
        for name, images in classes.items():
            if not images:
                raise UserError(f"dataset image_folder: {top / split / name} holds no image")
    return files


def _classes(top: Path, folder: Path) -> dict[str, list[str]]:
    """Lists the image files of each class folder in `folder`. Raises UserError for a link that leads out of `top`."""
    if not folder.is_dir():
        raise UserError(f"dataset image_folder: {folder} is missing. {LAYOUT.format(folder=top)}")
    check_inside(top, folder)
    classes = {}
    for entry in entries(folder):
        if entry.is_symlink():
            check_inside(top, Path(entry.path))
        if entry.is_dir():
            classes[entry.name] = image_names(top, entry.path)
    return classes


def _check_same_classes(a: object, a_classes: Iterable[str], b: object, b_classes: Iterable[str]) -> None:
    """Raises UserError if the classes of `a` and `b` differ. a, b: the names of the two places in the message."""
    differing = sorted(set(a_classes) ^ set(b_classes))
    if differing:
        more = f" and {len(differing) - MAX_NAMES} more" if len(differing) > MAX_NAMES else ""
        raise UserError(
            f"dataset image_folder: {a} and {b} differ in these classes: "
            f"{', '.join(map(short_repr, differing[:MAX_NAMES]))}{more}"
        )
