"""What is known of a dataset before any of it is read, and where its files lie."""

from __future__ import annotations

from dataclasses import dataclass, replace

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class DataOptions:
    """Where a dataset's files lie and how they are read."""

    folder: str = "data"
    size: int | None = None  # every image is resized to size x size; None leaves it as it is
    download: bool = True  # missing files may be fetched
    verify: bool = True  # compare files with torchvision's checksums; false for one's own files in the same format
    mirror: str | None = None  # base URL to take the files from instead of the original one
    classes: tuple[str, ...] = ()  # image_folder only: names of the classes where the folder is not there yet


@dataclass(frozen=True)
class DatasetInfo:
    """The facts of a dataset; `sizes` are None where they are not known before the files are there."""

    shape: tuple[int, int, int]  # C, H, W, after resizing
    classes: tuple[str, ...]
    flips: bool  # whether a mirrored image keeps its class
    sizes: dict[str, int | None]  # images per split: train, validation, test
    white: int = 255  # the stored value that stands for 1.0

    def resized(self, size: int | None) -> DatasetInfo:
        """The same for images of size x size."""
        return self if size is None else replace(self, shape=(self.shape[0], size, size))
