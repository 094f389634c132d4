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
    """Makes the key of a cache: what its values depend on.

    Args:
        teacher: sha256 of the teacher's checkpoint file, which holds weights and preprocessing.
        data: digest of the training images, see `Dataset.digest`.
        scheme: the views of an image.
        kind: `logits` or `features`.
    """
    return {"teacher": teacher, "data": data, **scheme.key, "kind": kind}


def sha256_of(path: str | Path) -> str:
    """Returns the sha256 of a cache file, as it was written when the cache was filled: to hash it reads it all.

    Raises:
        UserError: its description cannot be read.
    """
    try:
        return str(read_json(description_of(path))["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cache {path}: cannot be read ({error}). {REMEDY}") from error


class Writer:
    """Writes a cache file in batches, in order.

    The file appears at `path` complete or not at all. Until then its content lies in `scratch`, a file beside `path`
    from which another process can resume. `finish` leaves `scratch` there; the caller removes it when the job's other
    files are written. The file is written and not memory-mapped: a full disk then raises an error instead of killing
    the process.
    """

    def __init__(self, path: str | Path, key: dict[str, Any], shape: tuple[int, int, int], dtype: str, batch: int):
        """Prepares writing; no file is made yet.

        Args:
            path: file to write.
            key: what the values depend on, see `cache_key`.
            shape: (images, views, width).
            dtype: NumPy's name of the type of the values, for example `float32`.
            batch: number of rows in every batch except the last.
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
        """Writes the next batch of rows [B,width].

        Raises:
            OSError: if the disk cannot hold the whole file. The first batch reserves the space.
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
        """Flushes the batches to the disk and returns what `resume` needs: the sha256 of each batch, as JSON."""
        if self.file is not None:
            os.fsync(self.file.fileno())
        return canonical(self.hashes).encode()

    def resume(self, progress: bytes) -> None:
        """Takes over the batches that an earlier process wrote, up to the first that is missing or damaged.

        Args:
            progress: the bytes that `progress` returned there.
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
        """Writes the JSON description and gives the file its name.

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
    """Reads the cached logits or features of one teacher from a file.

    A batch reads only its own rows, so the memory needed does not depend on the size of the file. The file is read and
    not memory-mapped: a disk that vanishes then raises an error instead of killing the process.

    Attributes:
        images: number of training images.
        views: number of views of each image.
        width: number of values per view: classes for logits, features for features.
        description: content of the JSON file.
    """

    def __init__(self, path: str | Path, key: dict[str, Any]):
        """Opens a cache file and checks its sha256.

        Args:
            path: the cache file.
            key: what its values must depend on, see `cache_key`.

        Raises:
            UserError: if the file is missing or damaged, or belongs to another key.
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
        """Reads the teacher's values for a batch of views.

        Args:
            sample_ids: positions of the images in the training split, int64 [B].
            view_ids: number of the view of each image, int64 [B].

        Returns:
            Values [B,width] on the CPU: row i is for view `view_ids[i]` of image `sample_ids[i]`.

        Raises:
            UserError: if the file cannot be read any more.
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
