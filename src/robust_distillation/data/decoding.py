"""Listing of image files in folders, and decoding of them to arrays, with an on-disk cache of the result."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from robust_distillation.errors import UserError
from robust_distillation.files import atomic_write

if TYPE_CHECKING:
    import numpy as np

CACHE = Path("data") / "decoded"
VERSION = 2  # part of the cache key: raise it when decode() returns other pixels
# Pillow opens more formats, but some of them start another program.
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

log = logging.getLogger(__name__)


def load_images(folder: Path, names: list[str], size: int) -> np.ndarray:
    """Decodes image files, or loads their pixels from a cache if they were decoded before.

    The cache file is data/decoded/KEY.npz in the working directory. KEY is a hash of `folder`, `size`, and the names,
    sizes and modification times of the files. A missing or broken cache file is written anew; if that fails, a warning
    is logged. The folder data/decoded may be removed at any time.

    Args:
        folder: folder that the names are relative to.
        names: paths of the image files relative to `folder`, such as `["cat/1.png", "dog/7.jpg"]`.
        size: side in pixels to which each image is resized and cropped, see `decode`.

    Returns:
        NumPy array, uint8 [N,3,size,size] in RGB, in the order of `names`.

    Raises:
        UserError: if a file is not a readable image with at most 8 bits per channel.
        OSError: if a file is missing.
    """
    import numpy as np

    cached = CACHE / f"{_key(folder, names, size)}.npz"
    if cached.is_file():
        try:
            with np.load(cached, allow_pickle=False) as archive:
                images = archive["images"]
            if images.dtype == np.uint8 and images.shape == (len(names), 3, size, size):
                return images
            log.warning("%s holds other images: decoding them again", cached)
        except Exception as error:  # zip, header and CRC errors have many types
            log.warning("%s is broken (%s): decoding its images again", cached, error)
    log.info("decoding %d images of %s for the first time", len(names), folder)
    images = np.empty((len(names), 3, size, size), dtype=np.uint8)
    for i, name in enumerate(names):
        images[i] = decode(folder / name, size)
    try:
        with atomic_write(cached) as temporary:
            np.savez(temporary, images=images)
    except OSError as error:
        log.warning("the decoded images cannot be kept (%s); every job will decode them again", error)
    return images


def decode(path: Path, size: int) -> np.ndarray:
    """Decodes an image file: resizes the shorter side to `size` pixels and crops the centre to a square.

    The pixels equal those of torchvision's Resize(size), antialiased bilinear, and CenterCrop(size). As there,
    transparency is dropped and the EXIF orientation is ignored.

    Args:
        path: path of the image file: BMP, JPEG, PNG, PPM, TIFF or WebP.
        size: side of the square in pixels.

    Returns:
        NumPy array, uint8 [3,size,size] in RGB.

    Raises:
        UserError: if the file is missing, is not an image of these formats, or has more than 8 bits per channel.
    """
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as opened:
            if opened.mode.startswith(("I", "F")):
                raise ValueError("it has more than 8 bits per channel")
            image = opened.convert("RGB")
    except Exception as error:  # Pillow's parsers raise many types on a broken file
        raise UserError(f"{path}: not an image that can be read ({error}). Replace or remove it") from error
    width, height = image.size
    short = min(width, height)
    width, height = (size if side == short else int(size * side / short) for side in (width, height))
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size))).transpose(2, 0, 1)


def image_names(top: Path, folder: str | Path) -> list[str]:
    """Lists the image files in a folder, without hidden files, subfolders, and files without an image suffix.

    Args:
        top: the folder that no link may lead out of.
        folder: the folder to list, `top` or one below it.

    Returns:
        The names of the files in `folder`, sorted.

    Raises:
        UserError: if a link leads out of `top`.
    """
    names = []
    for entry in entries(folder):
        if entry.name.lower().endswith(SUFFIXES):
            if entry.is_symlink():
                check_inside(top, Path(entry.path))
            if entry.is_file():
                names.append(entry.name)
    return names


def entries(folder: str | Path) -> list[os.DirEntry]:
    """Returns the entries of a folder that are not hidden, sorted by name.

    Args:
        folder: the folder, which must exist.
    """
    with os.scandir(folder) as found:
        return sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)


def check_inside(top: Path, path: Path) -> None:
    """Checks that a path lies in a folder, also if it is a link.

    Args:
        top: the folder.
        path: the path, `top` or one below it.

    Raises:
        UserError: if it is a link to a place outside `top`.
    """
    if not path.resolve().is_relative_to(top.resolve()):
        raise UserError(f"{path} leads out of {top}, to {path.resolve()}. Put the files themselves there")


def _key(folder: Path, names: list[str], size: int) -> str:
    """Returns the cache key of decoded files: 64 hexadecimal digits."""
    hasher = hashlib.sha256(f"{VERSION} {size} {folder.resolve()}".encode())
    for name in names:
        status = os.stat(f"{folder}/{name}")  # joining 50,000 paths as Path would cost each job half a second
        hasher.update(os.fsencode(name) + f"\0{status.st_size} {status.st_mtime_ns}\0".encode())
    return hasher.hexdigest()
