"""Reads and writes cache files: a NumPy array of a teacher's values, and a JSON file beside it that describes it.

The array has one row per image and view. A view is what an augmentation makes of one training image. The JSON file
holds the key (what the values depend on), the shape, the dtype and the sha256 of the array's file.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from robust_distillation.data.views import Views
from robust_distillation.digests import canonical, digest
from robust_distillation.errors import UserError
from robust_distillation.files import atomic_write, check_reachable, read_json, sha256, write_json
from robust_distillation.layout import description_of

log = logging.getLogger(__name__)
REMEDY = "Remove it; the next start fills it again"
GONE = "Is its disk still there? The next start goes on where this one stopped"


def cache_key(teacher: str, data: str, scheme: Views, kind: str) -> dict[str, Any]:
    """Makes the key of a file of a teacher's cached outputs: all that the values in it depend on.

    Args:
        teacher: sha256 of the teacher's checkpoint file, which holds weights and preprocessing.
        data: sha256 of the training images and labels, as `data.dataset.Dataset.digest` returns it: 64 hexadecimal
            digits.
        scheme: the views of an image (what an augmentation makes of it), such as `ViewScheme(padding=4, flips=True)`,
            all crops of the image padded by 4 pixels and their mirror images. Its `key` is put in.
        kind: `logits` or `features`.

    Returns:
        The key, for example `{"teacher": "3fa1...", "data": "9c0e...", "padding": 4, "flips": True, "kind": "logits"}`.
    """
    return {"teacher": teacher, "data": data, **scheme.key, "kind": kind}


def sha256_of(path: str | Path) -> str:
    """Returns the sha256 of a cache file from the JSON file beside it, without reading the cache file.

    Args:
        path: path of the cache file, ending in `.npy`. The JSON file has the suffix `.json` in its place.

    Returns:
        64 hexadecimal digits: the hash that was computed when the cache was filled.

    Raises:
        UserError: if the JSON file is missing or damaged.
    """
    try:
        return str(read_json(description_of(path))["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cache {path}: cannot be read ({error}). {REMEDY}") from error


class Writer:
    """Writer of a file of a teacher's cached outputs (.npy) in batches of rows, in order.

    Until `finish`, the rows lie in a scratch file beside the cache file, from which another process can resume. The
    cache file appears at `path` complete or not at all. The file is written and not memory-mapped, so that a full disk
    raises an error and does not kill the process.

    Attributes:
        path: the cache file.
        scratch: the scratch file, `.NAME.filling` in the same folder. `finish` leaves it there, as a hard link to the
            cache file; the caller removes it. On a file system without hard links `finish` renames it to `path`.
        key: the values that identify the content, as `cache_key` returns them, such as `{"teacher": "3fa1...", "data":
            "9c0e...", "padding": 4, "flips": True, "kind": "logits"}`.
        shape: (images, views, width): numbers of training images, of views of each image, and of values of each view. A
            view is what an augmentation makes of an image.
        size: (rows, width), the shape of the array, with one row for each image and view.
        dtype: NumPy dtype of the values.
        batch: number of rows in every batch except the last.
        hashes: sha256 of each batch that was added or resumed. Its length is the number of the next batch.
    """

    def __init__(self, path: str | Path, key: dict[str, Any], shape: tuple[int, int, int], dtype: str, batch: int):
        """Creates the writer. Writes no file.

        Args:
            path: the cache file to write, ending in `.npy`.
            key: the values that identify the content, as `cache_key` returns them, such as `{"teacher": "3fa1...",
                "data": "9c0e...", "padding": 4, "flips": True, "kind": "logits"}`.
            shape: (images, views, width): numbers of training images, of views of each image (what an augmentation
                makes of it), and of values of each view. The array has images * views rows of `width` values.
            dtype: NumPy's name of the type of the values, for example `float32`.
            batch: number of rows in every batch except the last.

        Raises:
            UserError: if a folder above `path` is a broken link.
        """
        self.path, self.key, self.shape, self.batch = Path(path), key, shape, batch
        self.scratch = self.path.with_name(f".{self.path.name}.filling")
        check_reachable(self.path)
        self.dtype, self.size = np.dtype(dtype), (shape[0] * shape[1], shape[2])
        self.hashes: list[str] = []  # sha256 of each batch in `scratch`
        header = io.BytesIO()
        fields = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": self.size}
        np.lib.format.write_array_header_1_0(header, fields)
        self.header = header.getvalue()
        self.file: FileIO | None = None

    def add(self, batch: Tensor) -> None:
        """Writes the next batch of rows to the scratch file.

        The first call creates the scratch file and its folder, and reserves the space for all rows.

        Args:
            batch: tensor [B,width] on any device. B is `self.batch`, except in the last batch.

        Raises:
            OSError: if the disk cannot hold the whole file.
        """
        if self.file is None:
            self.scratch.parent.mkdir(parents=True, exist_ok=True)
            self.file = self.scratch.open("w+b", buffering=0)
            os.posix_fallocate(self.file.fileno(), 0, self._offset(self.size[0]))  # raises if the disk is too small
            self.file.write(self.header)
        values = np.ascontiguousarray(batch.cpu().numpy(), self.dtype).tobytes()
        offset, rest = self._offset(len(self.hashes) * self.batch), memoryview(values)
        while rest:
            written = os.pwrite(self.file.fileno(), rest, offset)
            offset, rest = offset + written, rest[written:]
        self.hashes.append(hashlib.sha256(values).hexdigest())

    def progress(self) -> bytes:
        """Flushes the added batches to the disk.

        Returns:
            The sha256 of each batch added so far, as a JSON list in UTF-8. `resume` takes it.
        """
        if self.file is not None:
            os.fsync(self.file.fileno())
        return canonical(self.hashes).encode()

    def resume(self, progress: bytes) -> None:
        """Takes over the batches that an earlier process wrote to the scratch file. Call it before `add`.

        Each batch is compared with its hash. The first one that differs, and all after it, must be added again; a
        warning is logged. Afterwards `len(self.hashes)` is the number of the batch to add next. Without a scratch file
        nothing is done.

        Args:
            progress: the bytes that `progress` returned in the earlier process.
        """
        if not self.scratch.is_file():
            return
        self.file = self.scratch.open("r+b", buffering=0)
        os.pwrite(self.file.fileno(), self.header, 0)
        for number, expected in enumerate(json.loads(progress)):
            start = self._offset(number * self.batch)
            stop = self._offset(min((number + 1) * self.batch, self.size[0]))
            if hashlib.sha256(os.pread(self.file.fileno(), stop - start, start)).hexdigest() != expected:
                log.warning("%s: batch %d is damaged; resuming from there", self.scratch, number)
                break
            self.hashes.append(expected)

    def finish(self) -> None:
        """Writes the JSON file that describes the array, and makes the array appear at `path`.

        The JSON file has the entries key, digest (sha256 of the key), shape, dtype and sha256 (of the array's file).

        Raises:
            ValueError: if batches are missing.
        """
        if len(self.hashes) != -(-self.size[0] // self.batch):
            raise ValueError(f"{self.path}: {len(self.hashes)} batches were added for {self.size[0]} rows")
        self.progress()
        description = {"key": self.key, "digest": digest(self.key), "shape": list(self.shape), "dtype": str(self.dtype)}
        write_json(description_of(self.path), description | {"sha256": sha256(self.scratch)})
        with atomic_write(self.path) as temporary:
            temporary.unlink()
            try:
                os.link(self.scratch, temporary)
            except OSError:  # the file system has no hard links
                os.replace(self.scratch, temporary)

    def _offset(self, row: int) -> int:
        """Returns the position of a row in the file, in bytes."""
        return len(self.header) + row * self.size[1] * self.dtype.itemsize


class CachedValues:
    """Reader of a file of one teacher's cached logits or features, for every view of every training image.

    A view is what an augmentation makes of an image, named by a number. An instance is called as `values(sample_ids,
    view_ids)`. Only the rows of the batch are read from the file, so the memory needed does not depend on the size of
    the file. The file is read and not memory-mapped: a disk that vanishes then raises an error and does not kill the
    process. The file stays open.

    The call takes `sample_ids`, the positions of the images in the training split, and `view_ids`, the numbers of their
    views. Both are int64 [B] on the CPU and count from 0. It returns a tensor [B,width] on the CPU in the dtype of the
    file.

    Attributes:
        path: the cache file.
        images: number of training images.
        views: number of views of each image.
        width: number of values per view: the number of classes for logits, the number of features for features.
        description: content of the JSON file beside the cache file: key, digest, shape, dtype and sha256.
    """

    def __init__(self, path: str | Path, key: dict[str, Any]):
        """Opens a cache file and checks its sha256, for which the whole file is read once.

        Args:
            path: the cache file, ending in `.npy`.
            key: the key that the file must have, as `cache_key` returns it, such as `{"teacher": "3fa1...", "data":
                "9c0e...", "padding": 4, "flips": True, "kind": "logits"}`.

        Raises:
            UserError: if the file or the JSON file beside it is missing or damaged, or if its key is another one.
        """
        self.path = Path(path)
        check_reachable(self.path)
        try:
            self.description = read_json(description_of(path))
            self.file = self.path.open("rb", buffering=0)
            shape, fortran, self.dtype = _array_of(self.file)
            self.start = self.file.tell()
            self.images, self.views, self.width = map(int, self.description["shape"])
            expected, cached_key = self.description["sha256"], dict(self.description["key"])
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise UserError(f"cache {path}: cannot be read ({error}). {REMEDY}") from error
        if cached_key != key:
            differing = sorted(k for k in key if cached_key.get(k) != key[k])
            raise UserError(f"cache {path}: belongs to another {' and '.join(differing)}. {REMEDY}")
        if shape != (self.images * self.views, self.width) or fortran:
            raise UserError(f"cache {path}: has the shape {shape}, not that of its description. {REMEDY}")
        if sha256(path) != expected:
            raise UserError(f"cache {path}: is damaged, its sha256 is not the one of {description_of(path)}. {REMEDY}")
        self.row = self.width * self.dtype.itemsize  # bytes

    def __call__(self, sample_ids: Tensor, view_ids: Tensor) -> Tensor:
        """Reads the teacher's logits or features for a batch of views (augmented training images).

        Args:
            sample_ids: positions of the images in the training split, from 0, int64 [B] on the CPU.
            view_ids: number of the view of each image, from 0, int64 [B] on the CPU.

        Returns:
            Tensor [B,width] on the CPU in the dtype of the file. Row i is for view `view_ids[i]` of image
            `sample_ids[i]`.

        Raises:
            UserError: if the file cannot be read any more or has become shorter.
        """
        rows = (sample_ids * self.views + view_ids).tolist()
        try:
            content = b"".join(os.pread(self.file.fileno(), self.row, self.start + row * self.row) for row in rows)
        except OSError as error:
            raise UserError(f"cache {self.path}: cannot be read any more ({error}). {GONE}") from error
        if len(content) != len(rows) * self.row:
            raise UserError(f"cache {self.path}: is shorter than it was. {GONE}")
        values = np.frombuffer(bytearray(content), self.dtype).reshape(len(rows), self.width)
        return torch.from_numpy(values)


def _array_of(stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Reads the header of a NumPy array at the position of the stream.

    Returns:
        The shape, true for Fortran order, and the dtype.

    Raises:
        ValueError: if there is no such header, or the array holds Python objects.
    """
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"an array of version {version}")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.hasobject:
        raise ValueError("an array of objects")
    return shape, fortran, dtype
