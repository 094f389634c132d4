"""The batch files of CIFAR-10 and CIFAR-100: pickles, read without believing them.

A pickle can name any function and have it called. Here it can name only what arrays are pickled with, and even that is
not what it gets: stand-ins take down what the file says of its array, which is then made from the bytes.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from robust_distillation.data.info import DataOptions
from robust_distillation.data.published import Published

PIXELS = (3, 32, 32)
WIDTH = 3 * 32 * 32


def count(path: Path) -> int:
    """How many images a batch file holds."""
    return _images(_content(path)).shape[0]


def read(files: Published, names: Iterable[str], options: DataOptions, key: str):
    """uint8 images [N,3,32,32] and int64 labels [N] of the files `names` one after the other.

    key: of the labels, `labels` in CIFAR-10 and `fine_labels` in CIFAR-100.
    """
    import numpy as np

    parts = []
    for name in names:
        path = files.verified(name, options)
        with files.reading(path):
            parts.append(_batch(path, key))
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def _batch(path: Path, key: str):
    import numpy as np

    content = _content(path)
    array, labels = _images(content), content.get(key)
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise ValueError(f"it holds no list of numbers {key!r}")
    if len(labels) != array.shape[0]:
        raise ValueError(f"it holds {array.shape[0]} images and {len(labels)} labels")
    flat = np.frombuffer(array.content, dtype=np.uint8).reshape(array.shape, order="F" if array.fortran else "C")
    return flat.reshape(-1, *PIXELS), np.array(labels, dtype=np.int64)


def _content(path: Path) -> dict[Any, Any]:
    """The mapping that a batch file is, its keys as text."""
    with open(path, "rb") as stream:
        found = _Reader(stream).load()
    if not isinstance(found, dict):
        raise ValueError("it holds no mapping")
    return {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in found.items()}


def _images(content: dict[Any, Any]) -> _Array:
    """The images of a batch, uint8 [N,3072]."""
    array = content.get("data")
    if not isinstance(array, _Array) or not isinstance(array.content, bytes | bytearray) or not array.of_bytes:
        raise ValueError("it holds no array 'data' of bytes")
    if array.shape != (len(array.content) // WIDTH, WIDTH) or len(array.content) % WIDTH:
        raise ValueError(f"its images are {array.shape} in {len(array.content)} bytes, not [N, {WIDTH}]")
    return array


class _Array:
    """What a pickle says of an array."""

    shape: Any = None
    kind: Any = None
    fortran: Any = False
    content: Any = None

    def __setstate__(self, state: tuple) -> None:
        _, self.shape, self.kind, self.fortran, self.content = state

    @property
    def of_bytes(self) -> bool:
        return isinstance(self.kind, _Kind) and self.kind.name in ("u1", b"u1")


class _Kind:
    """What it says of a dtype."""

    def __init__(self, name: Any, *_: Any):
        self.name = name

    def __setstate__(self, state: tuple) -> None:
        """Byte order and the like, which single bytes do not have."""


class _Reader(pickle.Unpickler):
    def __init__(self, stream: BinaryIO):
        super().__init__(stream, encoding="bytes")  # Python 2 wrote the published files

        # Of this reader alone, for a pickle may also set attributes of the functions it is given.
        def reconstruct(*_: Any) -> _Array:
            return _Array()

        def from_buffer(content: Any, kind: Any, shape: Any, order: Any, axes: Any = None) -> _Array:
            if axes is not None:
                raise pickle.UnpicklingError("its array has its axes in another order")
            found = _Array()
            found.__setstate__((1, shape, kind, order == "F", content))
            return found

        self.stand_ins = {
            ("numpy", "ndarray"): object(),
            ("numpy", "dtype"): _Kind,
            ("_codecs", "encode"): lambda text, _: text.encode("latin1"),  # bytes, where Python 3 writes protocol 2
        }
        for core in ("numpy.core", "numpy._core"):
            self.stand_ins[f"{core}.multiarray", "_reconstruct"] = reconstruct
            self.stand_ins[f"{core}.numeric", "_frombuffer"] = from_buffer

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.stand_ins:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no array needs")
        return self.stand_ins[module, name]
