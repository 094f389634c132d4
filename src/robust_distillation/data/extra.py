"""Extra training images beside a dataset, with or without labels: an .npz file of generated images, a folder, or the
images of the training split that an experiment leaves out.

An .npz file holds `image`, uint8 [N,H,W,C] or [N,C,H,W], and may hold `label`, integers [N]. A folder holds image
files, without labels, or a folder of them for each class of the dataset. Pixels from 0 to 255 stand for [0,1], whatever
the range of the dataset is.

Published files are not in random order (those of EDM are sorted by class), so a limited number of images is a random
subset, always the same one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from robust_distillation.data.decoding import check_inside, entries, image_names, load_images
from robust_distillation.data.info import DatasetInfo
from robust_distillation.errors import UserError, is_out_of_memory, short_repr, unknown

if TYPE_CHECKING:
    from zipfile import ZipFile

    import numpy as np
    from torch import Tensor

    from robust_distillation.data.dataset import Dataset

WHITE = 255  # pixel value in the files that stands for 1.0
SHRUNK = 200  # compression of an .npz file to less than this part of its size is that of no pictures
LUMINANCE = (19595, 38470, 7471)  # weights of red, green and blue in 1/65536 (ITU-R 601), as in Pillow's grey images


@dataclass(frozen=True)
class ExtraSource:
    """Place of the extra images, and the choice of those that are used.

    Attributes:
        path: path of the .npz file or of the folder; None for the rest of the training split.
        is_folder: True for a folder.
        limit: number of images to use, a random subset; None: all.
        labels: True to read the labels of the source; False to use the images without labels.
    """

    path: str | None
    is_folder: bool = False
    limit: int | None = None
    labels: bool = False


class ExtraInfo(NamedTuple):
    """Number of extra images in a source, and whether they have labels: known without reading them.

    Attributes:
        images: number of images in the source.
        labelled: True if the source has labels.
    """

    images: int
    labelled: bool


def info(path: str | Path, is_folder: bool, dataset: DatasetInfo) -> ExtraInfo | None:
    """Counts the images of a source and checks their form, without reading an image.

    Of an .npz file the headers of its arrays are read, of a folder the names of its files.

    Args:
        path: path of the .npz file or of the folder.
        is_folder: True for a folder.
        dataset: the dataset whose shape and classes the images must have.

    Returns:
        The number of images, and whether they have labels. None if nothing is at `path`.

    Raises:
        UserError: if the file is no .npz file or holds no suitable array `image`, if the arrays are too large for the
            file, if the folder holds no image, or images beside folders, or folders of other classes.
    """
    path = Path(path)
    if is_folder:
        if not path.is_dir():
            return None
        files = _listed(path, dataset)
        return ExtraInfo(len(files), files[0][1] >= 0)
    if not path.is_file():
        return None
    with _reading(path):
        import zipfile

        with zipfile.ZipFile(path) as archive:
            images, labels = _header(archive, "image"), _header(archive, "label")
            return _checked(path, images, labels, dataset)


def load(source: ExtraSource, dataset: DatasetInfo) -> Dataset:
    """Reads extra images of a file or folder into memory.

    Args:
        source: their place, and the choice of those that are used.
        dataset: the dataset whose shape, classes and range of pixels the images get.

    Returns:
        The images on the CPU, uint8 [N,C,H,W] with values from 0 to `dataset.max_value`, in the order of the source:
        `limit` of them, or all. Images of a folder are resized and cropped as those of an `image_folder`, and turned to
        grey for a dataset of grey images. `labels` is int64 [N]; -1 if `source.labels` is False.

    Raises:
        UserError: if the source is missing, is broken or does not fit the dataset, see `info`, if there are fewer
            images than `limit`, if the source has no labels that `source.labels` asks for, or if a label is not a class
            number.
    """
    import torch

    from robust_distillation.data.dataset import Dataset

    path = Path(source.path)
    found = info(path, source.is_folder, dataset)
    if found is None:
        raise UserError(f"{path}: is missing: the extra images")
    if source.limit is not None and source.limit > found.images:
        raise UserError(f"{path}: holds {found.images} images, fewer than dataset.extra.limit, {source.limit}")
    if source.labels and not found.labelled:
        raise UserError(f"{path}: has no labels. Set dataset.extra.labels: false, or dataset.extra.labelled_by")
    rows = _subset(found.images, source.limit)
    images, labels = (_read_folder if source.is_folder else _read_file)(path, rows, dataset)
    images = _in_range(path, torch.from_numpy(images), dataset.max_value)
    if not source.labels:
        return Dataset(images, torch.full((len(images),), -1), dataset)
    low, high, classes = int(labels.min()), int(labels.max()), len(dataset.classes)
    if low < 0 or high >= classes:
        raise UserError(
            f"{path}: its labels run from {low} to {high}, but there are {classes} classes, 0 to {classes - 1}. Set "
            "dataset.extra.labels: false to use the images without them"
        )
    return Dataset(images, torch.from_numpy(labels.astype("int64")), dataset)


def chosen(source: ExtraSource, rest: Dataset) -> Dataset:
    """Chooses the extra images among the images of the training split that an experiment leaves out.

    Args:
        source: the choice of those that are used.
        rest: the images that are left out, with their labels.

    Returns:
        `limit` of them, or all, in the order of the split. The labels are -1 if `source.labels` is False.

    Raises:
        UserError: if there are fewer images than `limit`.
    """
    from robust_distillation.data.dataset import Dataset

    if (source.limit or 0) > len(rest):
        raise UserError(
            f"dataset.limit.train leaves out {len(rest)} images, fewer than dataset.extra.limit, {source.limit}"
        )
    rows = _subset(len(rest), source.limit)
    labels = rest.labels[rows]
    return Dataset(rest.images[rows], labels if source.labels else labels * 0 - 1, rest.info)


def images_in_batch(batch: int, share: float) -> int:
    """Returns the number of extra images in a batch: `batch` x `share`, rounded down.

    Args:
        batch: number of images of the batch.
        share: share of the extra images, in [0, 1].
    """
    return int(batch * share + 1e-9)  # 0.29 * 100 is a little less than 29


def _subset(images: int, limit: int | None) -> np.ndarray | slice:
    """Returns the ascending positions of `limit` random images, always the same ones; all without a limit."""
    from robust_distillation.randomness import generator

    if limit is None or limit == images:
        return slice(None)
    import torch

    return torch.randperm(images, generator=generator(0, "extra images"))[:limit].sort().values.numpy()


def _in_range(path: Path, images: Tensor, max_value: int) -> Tensor:
    """Converts pixels from 0 to 255 to pixels from 0 to `max_value`, rounded, in place."""
    if max_value == WHITE:
        return images
    if int(images.max()) <= max_value:
        raise UserError(
            f"{path}: no pixel is above {int(images.max())}, but here {WHITE} stands for 1.0, also for a dataset whose "
            f"own pixels run to {max_value}. Multiply them by {WHITE} / {max_value}"
        )
    for part in images.split(10_000):  # in place, and a part at a time: there may be millions
        part.copy_((part.int() * max_value + WHITE // 2) // WHITE)
    return images


# .npz files


Header = tuple[tuple[int, ...], "np.dtype"]


def _header(archive: ZipFile, name: str) -> Header | None:
    """Returns shape and dtype of an array of an .npz file; None if the file has no such array.

    Raises ValueError if its data are not as many bytes as the shape needs, or are compressed as no picture can be.
    """
    import numpy as np

    if f"{name}.npy" not in archive.namelist():
        return None
    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in reader:
            raise ValueError(f"its {name} is an array of version {version}")
        shape, _, dtype = reader[version](stream)
        start = stream.tell()
    if dtype.hasobject:
        raise ValueError(f"its {name} holds Python objects, which are never loaded; save an array of integers")
    count = 1
    for length in shape:
        count *= length
    if member.file_size != start + count * dtype.itemsize:
        raise ValueError(f"its {name} has {member.file_size} bytes, not those of {dtype} {list(shape)}")
    if name == "image" and member.file_size > SHRUNK * member.compress_size:
        raise ValueError(f"its {name} unpacks to {member.file_size} bytes, more than {SHRUNK} times its size")
    return shape, dtype


def _checked(path: Path, images: Header | None, labels: Header | None, dataset: DatasetInfo) -> ExtraInfo:
    """Checks shapes and dtypes of the arrays of an .npz file."""
    channels, height, width = dataset.shape
    wanted = f"uint8 [N,{height},{width},{channels}]"
    if images is None:
        raise UserError(f"{path}: holds no array `image`, {wanted}")
    shape, dtype = images
    if dtype != "uint8" or len(shape) != 4 or shape[1:] not in _layouts(dataset):
        raise UserError(f"{path}: its image is {dtype} {list(shape)}, not {wanted} as the dataset's images")
    if not shape[0]:
        raise UserError(f"{path}: its image holds no image")
    if len(_layouts(dataset)) == 1:
        raise UserError(f"{path}: of images {channels} x {height} x {width} no one can tell which axis is the channels")
    if labels is not None and (labels[1].kind not in "iu" or labels[0] != shape[:1]):
        raise UserError(f"{path}: its label is {labels[1]} {list(labels[0])}, not integers [{shape[0]}]")
    return ExtraInfo(shape[0], labels is not None)


def _layouts(dataset: DatasetInfo) -> set[tuple[int, ...]]:
    """Returns the shapes of an image with the channels last and first."""
    channels, height, width = dataset.shape
    return {(height, width, channels), (channels, height, width)}


def _read_file(path: Path, rows: Any, dataset: DatasetInfo) -> tuple[np.ndarray, np.ndarray]:
    """Reads images [N,C,H,W] and labels [N] of an .npz file; without labels the second array is empty."""
    import numpy as np

    with _reading(path), np.load(path, allow_pickle=False) as archive:
        images = archive["image"][rows]
        labels = archive["label"][rows] if "label" in archive.files else np.empty(0)
    if images.shape[1:] != dataset.shape:
        images = images.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images), labels


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns any error of its block, in which a file is read, into a UserError that names the file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # zip, header and CRC errors have many types
        if is_out_of_memory(error) or (isinstance(error, OSError) and error.errno is not None):
            raise  # the fault of the machine
        reason = f"{error}".rstrip(".") or type(error).__name__
        raise UserError(f"{path}: cannot be read as an .npz file ({reason})") from error


# Folders


def _listed(top: Path, dataset: DatasetInfo) -> list[tuple[str, int]]:
    """Lists the image files of a folder by path relative to it, with their labels (-1: none)."""
    if dataset.shape[1] != dataset.shape[2]:
        raise UserError(f"{top}: image files are made square, the dataset's images are not. Give an .npz file")
    folders = [entry for entry in entries(top) if entry.is_dir()]
    names = image_names(top, top)
    if folders and names:
        raise UserError(
            f"{top}: holds images and folders ({short_repr(folders[0].name)}). Put the images into one folder, without "
            "labels, or into a folder for each class"
        )
    files = [(name, -1) for name in names]
    classes = list(dataset.classes)
    for folder in folders:
        check_inside(top, Path(folder.path))
        if folder.name not in classes:
            raise UserError(f"{top}: {unknown('class', folder.name, classes)}")
        files += [(f"{folder.name}/{name}", classes.index(folder.name)) for name in image_names(top, folder.path)]
    if not files:
        raise UserError(f"{top}: holds no image")
    return files


def _read_folder(path: Path, rows: Any, dataset: DatasetInfo) -> tuple[np.ndarray, np.ndarray]:
    """Decodes the images [N,C,H,W] of a folder, and returns them with their labels [N]."""
    import numpy as np

    files = _listed(path, dataset)
    files = files[rows] if isinstance(rows, slice) else [files[row] for row in rows]
    images = load_images(path, [name for name, _ in files], dataset.shape[1])
    if dataset.shape[0] == 1:
        weights = np.array(LUMINANCE)[:, None, None]
        images = np.stack([((image * weights).sum(0) + 0x8000 >> 16).astype(np.uint8)[None] for image in images])
    return images, np.array([label for _, label in files], dtype=np.int64)
