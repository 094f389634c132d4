"""STL-10 (Coates et al., 2011): 96x96 colour images, read from FOLDER/stl10_binary as torchvision stores them.

Only the labelled images are unpacked and used. The last 500 of the 5,000 training images are the validation split.
"""

from __future__ import annotations

from pathlib import Path

from robust_distillation.data.info import DataOptions, DatasetInfo
from robust_distillation.data.published import Download, PublishedFiles
from robust_distillation.data.resizing import resize

INFO = DatasetInfo(
    shape=(3, 96, 96),
    classes=("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
    flips=True,
    sizes={"train": 4500, "validation": 500, "test": 8000},
)
MD5 = {
    "stl10_binary/train_X.bin": "918c2871b30a85fa023e0c44e0bee87f",
    "stl10_binary/train_y.bin": "5a34089d4802c674881badbb80307741",
    "stl10_binary/test_X.bin": "7f263ba9f9e0b06b93213547f721ac82",
    "stl10_binary/test_y.bin": "36f9794fa4beb8a2c72628de14fa638e",
}
TRAIN, TRAIN_LABELS, TEST, TEST_LABELS = MD5
FILES = PublishedFiles(
    "stl10",
    "http://ai.stanford.edu/~acoates/stl10/",
    (Download("stl10_binary.tar.gz", "91f7769df0f17e558f3565bffb0c7dfb", tuple(MD5)),),
    md5=MD5,
)
BYTES = 3 * 96 * 96  # size of one image
check, fetch = FILES.check, FILES.fetch


def info(options: DataOptions) -> DatasetInfo:
    """Returns image shape, classes and split sizes of STL-10. The files may be absent.

    H and W of the shape are `options.size` if it is set. With `options.verify` False, the split sizes are those of your
    own files, if all of them exist.
    """
    return FILES.adapted_info(INFO, options, [TRAIN], TEST, _count)


def read(split: str, options: DataOptions):
    """Reads one split from the files in `options.folder`.

    Args:
        split: "train", "validation" or "test".
        options: folder, image size and whether checksums are compared.

    Returns:
        uint8 images [N,3,H,W] and int64 labels [N]. H and W are `options.size` if it is set.

    Raises:
        UserError: if a file is missing, is broken, or has another checksum than the published one.
    """
    import numpy as np

    names = (TEST, TEST_LABELS) if split == "test" else (TRAIN, TRAIN_LABELS)
    path, labels_path = (FILES.verified_path(name, options) for name in names)
    with FILES.reading_errors(path):
        count = _count(path)
    rows = FILES.split_slice(split, count, INFO, options)
    with FILES.reading_errors(path):
        whole = np.memmap(path, np.uint8, "r", shape=(count, 3, 96, 96))
        images = np.ascontiguousarray(whole[rows].swapaxes(2, 3))  # the file stores columns, not rows
    with FILES.reading_errors(labels_path):
        labels = np.fromfile(labels_path, dtype=np.uint8).astype(np.int64) - 1
        if len(labels) != count:
            raise ValueError(f"it holds {len(labels)} labels of {count} images")
    return resize(images, options.size), labels[rows]


def _count(path: Path) -> int:
    """Returns the number of images in a file, computed from its size. Raises ValueError if the size is impossible."""
    size = path.stat().st_size
    if size % BYTES:
        raise ValueError(f"its size, {size} bytes, is not a multiple of {BYTES}, the size of an image")
    return size // BYTES
