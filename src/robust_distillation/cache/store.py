"""The files of the cache: an array and, beside it, what it is the cache of."""

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

from robust_distillation.data.views import ViewScheme
from robust_distillation.device import to_device
from robust_distillation.errors import UserError
from robust_distillation.files import canonical, check_reachable, digest, read_json, replacing, sha256, write_json
from robust_distillation.models.output import Output

log = logging.getLogger(__name__)
REMEDY = "Remove it; the next start fills it again"
GONE = "Is its disk still there? The next start goes on where this one was"


def cache_key(teacher: str, data: str, scheme: ViewScheme, kind: str) -> dict[str, Any]:
    """What a cached value depends on: the teacher's file (weights and preprocessing), the data, the views."""
    return {"teacher": teacher, "data": data, "padding": scheme.padding, "flips": scheme.flips, "kind": kind}


def description_of(path: str | Path) -> Path:
    """The JSON file that lies beside a cache file."""
    return Path(path).with_suffix(".json")


class Writer:
    """Fills a cache of shape [images, views, width] in order, in batches; at `path` it is whole or absent.

    It is filled in a file beside `path`, `scratch`, so that another process can go on from there. That file stays when
    it gets its name, too: whoever calls removes it once nothing can be lost any more. It is written, not mapped into
    memory: a full disk is an error then, while under a map it would end the process.
    """

    def __init__(self, path: str | Path, key: dict[str, Any], shape: tuple[int, int, int], dtype: str, batch: int):
        """dtype: as numpy names it; batch: rows of each batch but the last."""
        self.path, self.key, self.shape, self.batch = Path(path), key, shape, batch
        self.scratch = self.path.with_name(f".{self.path.name}.filling")
        check_reachable(self.path)
        self.dtype, self.size = np.dtype(dtype), (shape[0] * shape[1], shape[2])
        self.hashes: list[str] = []  # of the batches that are there
        header = io.BytesIO()
        named = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": self.size}
        np.lib.format.write_array_header_1_0(header, named)
        self.header = header.getvalue()
        self.file: FileIO | None = None

    def add(self, batch: Tensor) -> None:
        """batch [B,width]."""
        if self.file is None:
            self.scratch.parent.mkdir(parents=True, exist_ok=True)
            self.file = self.scratch.open("w+b", buffering=0)
            os.posix_fallocate(self.file.fileno(), 0, self._place(self.size[0]))  # a full disk is noticed now
            self.file.write(self.header)
        values = np.ascontiguousarray(batch.cpu().numpy(), self.dtype).tobytes()
        place, left = self._place(len(self.hashes) * self.batch), memoryview(values)
        while left:
            written = os.pwrite(self.file.fileno(), left, place)
            place, left = place + written, left[written:]
        self.hashes.append(hashlib.sha256(values).hexdigest())

    def saved(self) -> bytes:
        """What `go_on` needs to know; the batches are on the disk."""
        if self.file is not None:
            os.fsync(self.file.fileno())
        return canonical(self.hashes).encode()

    def go_on(self, saved: bytes) -> None:
        """Takes over the batches that are what they were when `saved` was written, up to the first that is not."""
        if not self.scratch.is_file():
            return
        self.file = self.scratch.open("r+b", buffering=0)
        os.pwrite(self.file.fileno(), self.header, 0)
        for number, known in enumerate(json.loads(saved)):
            place = self._place(number * self.batch)
            stop = self._place(min((number + 1) * self.batch, self.size[0]))
            if hashlib.sha256(os.pread(self.file.fileno(), stop - place, place)).hexdigest() != known:
                log.warning("%s: batch %d is damaged; going on from there", self.scratch, number)
                break
            self.hashes.append(known)

    def finish(self) -> None:
        """Raises ValueError where batches are missing."""
        if len(self.hashes) != -(-self.size[0] // self.batch):
            raise ValueError(f"{self.path}: {len(self.hashes)} batches were given for {self.size[0]} rows")
        self.saved()
        description = {"key": self.key, "digest": digest(self.key), "shape": list(self.shape), "dtype": str(self.dtype)}
        write_json(description_of(self.path), description | {"sha256": sha256(self.scratch)})
        with replacing(self.path) as temporary:
            temporary.unlink()
            try:
                os.link(self.scratch, temporary)
            except OSError:  # a file system on which a file has one name
                os.replace(self.scratch, temporary)

    def _place(self, row: int) -> int:
        """Of a row in the file."""
        return len(self.header) + row * self.size[1] * self.dtype.itemsize


class CachedValues:
    """One kind of value of one teacher, read where it lies: a batch costs its own bytes, whatever the file's size.

    It is read, not mapped into memory: where its disk vanishes, a read says so, while a map would end the process.
    """

    def __init__(self, path: str | Path, key: dict[str, Any]):
        """Raises UserError where the file is not whole or not the cache of `key`."""
        self.path = Path(path)
        check_reachable(self.path)
        try:
            self.description = read_json(description_of(path))
            self.file = self.path.open("rb", buffering=0)
            shape, fortran, self.dtype = _array_of(self.file)
            self.start = self.file.tell()
            self.images, self.views, self.width = map(int, self.description["shape"])
            known, belongs = self.description["sha256"], dict(self.description["key"])
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise UserError(f"cache {path}: cannot be read ({error}). {REMEDY}") from error
        if belongs != key:
            differing = sorted(k for k in key if belongs.get(k) != key[k])
            raise UserError(f"cache {path}: belongs to another {' and '.join(differing)}. {REMEDY}")
        if shape != (self.images * self.views, self.width) or fortran:
            raise UserError(f"cache {path}: holds {shape}, not what it says. {REMEDY}")
        if sha256(path) != known:
            raise UserError(f"cache {path}: is damaged, its sha256 is not the one of {description_of(path)}. {REMEDY}")
        self.row = self.width * self.dtype.itemsize

    def __call__(self, index: Tensor, views: Tensor) -> Tensor:
        """[B,width]: the values for view `views[i]` of training image `index[i]`."""
        places = (index * self.views + views).tolist()
        try:
            content = b"".join(os.pread(self.file.fileno(), self.row, self.start + row * self.row) for row in places)
        except OSError as error:
            raise UserError(f"cache {self.path}: cannot be read any more ({error}). {GONE}") from error
        if len(content) != len(places) * self.row:
            raise UserError(f"cache {self.path}: is shorter than it was. {GONE}")
        values = np.frombuffer(bytearray(content), self.dtype).reshape(len(places), self.width)
        return torch.from_numpy(values)


def _array_of(stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran's order, and type of the array that begins where the stream is read on."""
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"an array of version {version}")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.hasobject:
        raise ValueError("an array of objects")
    return shape, fortran, dtype


class CachedTeacher:
    """Serves T(x) from the cache, and T(x'), where a method asks for it, from the live teacher."""

    def __init__(self, logits: CachedValues | None = None, features: CachedValues | None = None, live=None):
        self.logits, self.features, self.live = logits, features, live

    def clean(self, x: Tensor, index: Tensor, views: Tensor) -> Output:
        logits = self.logits and to_device(self.logits(index, views), x.device)
        features = self.features and to_device(self.features(index, views), x.device)
        return Output(logits, features)

    def __call__(self, x: Tensor) -> Output:
        return self.live(x)
