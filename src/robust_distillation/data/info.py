"""Facts about a dataset that are known without reading it, and the options for reading it."""

from __future__ import annotations

from dataclasses import dataclass, replace

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class DataOptions:
    """Location of a dataset's files and options for reading them.

    Attributes:
        folder: folder of the files. Each dataset has a subfolder of it or named files in it.
        size: side in pixels to which all images are resized, or None to keep their size.
        download: True if missing files may be downloaded.
        verify: True to compare files with the checksums that torchvision publishes. Set it to False for your own files
            in the same format.
        mirror: base URL to download from, such as `https://example.org/cifar`, or None for the dataset's original
            server.
        classes: for the dataset `image_folder` (your own images) only: the names of the classes. They allow planning
            before the folder exists. If the folder exists, they must equal the names of its class folders. Empty: the
            class folders give the names.
    """

    folder: str = "data"
    size: int | None = None
    download: bool = True
    verify: bool = True
    mirror: str | None = None
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetInfo:
    """Shape, classes and sizes of a dataset.

    Attributes:
        shape: (C, H, W) of the images, after resizing.
        classes: names of the classes. The label k stands for classes[k].
        flips: True if a horizontally mirrored image keeps its class; False for digits.
        sizes: number of images of each split, by "train", "validation" and "test". A number is None if it cannot be
            known before the files exist.
        max_value: integer pixel value in the stored images that stands for 1.0.
    """

    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    flips: bool
    sizes: dict[str, int | None]
    max_value: int = 255

    def with_size(self, size: int | None) -> DatasetInfo:
        """Returns this info with another image size.

        Args:
            size: side of the images in pixels, or None for this info as it is.

        Returns:
            The info with the shape (C, size, size).
        """
        return self if size is None else replace(self, shape=(self.shape[0], size, size))
