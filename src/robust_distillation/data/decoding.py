"""Image files as arrays: decoded once, kept, and checked when they are read again."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from robust_distillation.errors import UserError
from robust_distillation.files import replacing

if TYPE_CHECKING:
    import numpy as np

KEPT = Path("data") / "decoded"
VERSION = 2  # of what decode() makes of a file
# Not everything that Pillow opens: some formats start another program.
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

log = logging.getLogger(__name__)


def decoded(folder: Path, names: list[str], size: int) -> np.ndarray:
    """uint8 [N,3,size,size]: the image files `names` below `folder`, in this order.

    The array is kept as data/decoded/KEY.npz; the key covers names, sizes and times of change of the files, and `size`.
    A kept file that is broken (zip keeps a CRC of its content) is made again. The folder may be removed at any time.
    """
    import numpy as np

    kept = KEPT / f"{_key(folder, names, size)}.npz"
    if kept.is_file():
        try:
            with np.load(kept, allow_pickle=False) as found:
                images = found["images"]
            if images.dtype == np.uint8 and images.shape == (len(names), 3, size, size):
                return images
            log.warning("%s holds other images: made again", kept)
        except Exception as error:  # zip, header and CRC fail in many types
            log.warning("%s is broken (%s): made again", kept, error)
    log.info("decoding %d images of %s, once", len(names), folder)
    images = np.empty((len(names), 3, size, size), dtype=np.uint8)
    for i, name in enumerate(names):
        images[i] = decode(folder / name, size)
    try:
        with replacing(kept) as temporary:
            np.savez(temporary, images=images)
    except OSError as error:
        log.warning("the decoded images cannot be kept (%s); every job will decode them again", error)
    return images


def decode(path: Path, size: int) -> np.ndarray:
    """uint8 [3,size,size]: the image in RGB, its shorter side resized to `size`, then its middle.

    The antialiased bilinear pixels of torchvision's Resize(size) and CenterCrop(size) on the file. As there, a
    transparent image loses its transparency and a photo's note of how the camera was held is not followed. Raises
    UserError where the file is no image, or one of more than 8 bits per channel.
    """
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as opened:
            if opened.mode.startswith(("I", "F")):
                raise ValueError("it has more than 8 bits per channel")
            image = opened.convert("RGB")
    except Exception as error:  # Pillow raises whatever its parsers meet in a broken file
        raise UserError(f"{path}: not an image that can be read ({error}). Replace or remove it") from error
    width, height = image.size
    short = min(width, height)
    width, height = (size if side == short else int(size * side / short) for side in (width, height))
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size))).transpose(2, 0, 1)


def _key(folder: Path, names: list[str], size: int) -> str:
    found = hashlib.sha256(f"{VERSION} {size} {folder.resolve()}".encode())
    for name in names:
        status = os.stat(f"{folder}/{name}")  # joining 50,000 paths as Path would cost each job half a second
        found.update(os.fsencode(name) + f"\0{status.st_size} {status.st_mtime_ns}\0".encode())
    return found.hexdigest()
