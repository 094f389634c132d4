"""Safe reading of the batch files of CIFAR-10 and CIFAR-100, which are pickles.

Unpickling can call any function that the file names. The reader here accepts only the few names with which NumPy arrays
are pickled, and replaces even those by stand-ins. The stand-ins record shape, dtype and bytes of the array, from which
the array is then built.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from robust_distillation.data.info import DataOptions
from robust_distillation.data.published import PublishedFiles

PIXELS = (3, 32, 32)
WIDTH = 3 * 32 * 32


def count(path: Path) -> int:
    """Returns the number of images in a batch file of CIFAR-10 or CIFAR-100.

    Args:
        path: path of the file, a pickle of a dict whose entry `data` is a uint8 array [N,3072].

    Returns:
        N.

    Raises:
        ValueError, pickle.UnpicklingError: if the file has another content. A damaged pickle can raise other
            exceptions.
        OSError: if the file cannot be opened.
    """
    return _images(_content(path)).shape[0]


def read(files: PublishedFiles, names: Iterable[str], options: DataOptions, key: str):
    """Reads batch files of CIFAR-10 or CIFAR-100 and concatenates the images and labels. Runs no code of the files.

    Args:
        files: the published files of the dataset, a PublishedFiles: its methods give the folder of the dataset and
            compare checksums.
        names: paths of the batch files relative to the dataset's folder, in the order in which they are concatenated,
            such as `["cifar-10-batches-py/data_batch_1", ...]`.
        options: fields of DataOptions: `folder` of the files, and `verify`: whether their checksums are compared with
            the published ones.
        key: key of the labels in a batch file: "labels" for CIFAR-10, "fine_labels" for CIFAR-100.

    Returns:
        A pair of NumPy arrays: images, uint8 [N,3,32,32], and labels, int64 [N].

    Raises:
        UserError: if a file is broken or has another checksum than the published one, or if it is missing and
            `options.verify` is False.
    """
    import numpy as np

    parts = []
    for name in names:
        path = files.verified_path(name, options)
        with files.reading_errors(path):
            parts.append(_batch(path, key))
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def _batch(path: Path, key: str):
    """Reads one batch file: uint8 images [N,3,32,32] and int64 labels [N]. Raises ValueError for a broken file."""
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
    """Unpickles a batch file to a dict with str keys. Raises ValueError if it is not a dict."""
    with open(path, "rb") as stream:
        content = _Reader(stream).load()
    if not isinstance(content, dict):
        raise ValueError("it holds no mapping")
    return {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in content.items()}


def _images(content: dict[Any, Any]) -> _Array:
    """Returns the array of images, uint8 [N,3072]. Raises ValueError if there is none or its size is wrong."""
    array = content.get("data")
    if not isinstance(array, _Array) or not isinstance(array.content, bytes | bytearray) or not array.of_bytes:
        raise ValueError("it holds no array 'data' of bytes")
    if array.shape != (len(array.content) // WIDTH, WIDTH) or len(array.content) % WIDTH:
        raise ValueError(f"its images are {array.shape} in {len(array.content)} bytes, not [N, {WIDTH}]")
    return array


class _Array:
    """Stand-in for numpy.ndarray that records the array's shape, dtype, memory order and bytes."""

    shape: Any = None
    kind: Any = None
    fortran: Any = False
    content: Any = None

    def __setstate__(self, state: tuple) -> None:
        """Records the state that numpy pickles for an array."""
        _, self.shape, self.kind, self.fortran, self.content = state

    @property
    def of_bytes(self) -> bool:
        """True if the dtype is uint8."""
        return isinstance(self.kind, _Kind) and self.kind.name in ("u1", b"u1")


class _Kind:
    """Stand-in for numpy.dtype that records the dtype's name."""

    def __init__(self, name: Any, *_: Any):
        self.name = name

    def __setstate__(self, state: tuple) -> None:
        """Ignores byte order and alignment, which do not matter for single bytes."""


class _Reader(pickle.Unpickler):
    """Unpickler that knows no names but the stand-ins below."""

    def __init__(self, stream: BinaryIO):
        super().__init__(stream, encoding="bytes")  # Python 2 wrote the published files

        # Defined anew for each reader, since a pickle may also set attributes of the functions it gets.
        def reconstruct(*_: Any) -> _Array:
            return _Array()

        def from_buffer(content: Any, kind: Any, shape: Any, order: Any, axes: Any = None) -> _Array:
            if axes is not None:
                raise pickle.UnpicklingError("its array has its axes in another order")
            array = _Array()
            array.__setstate__((1, shape, kind, order == "F", content))
            return array

        self.stand_ins = {
            ("numpy", "ndarray"): object(),
            ("numpy", "dtype"): _Kind,
            ("_codecs", "encode"): lambda text, _: text.encode("latin1"),  # how Python 3 writes bytes in protocol 2
        }
        for core in ("numpy.core", "numpy._core"):
            self.stand_ins[f"{core}.multiarray", "_reconstruct"] = reconstruct
            self.stand_ins[f"{core}.numeric", "_frombuffer"] = from_buffer

    def find_class(self, module: str, name: str) -> Any:
        """Returns the stand-in for a name in the pickle. Raises UnpicklingError for any other name."""
        if (module, name) not in self.stand_ins:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no array needs")
        return self.stand_ins[module, name]
