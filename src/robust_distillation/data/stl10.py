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
    """Returns image shape, classes and split sizes of STL-10, as read with `options`. The files may be absent.

    Args:
        options: fields of DataOptions: `folder` of the files, `size` of the images, and `verify`: False for your own
            files in the same format.

    Returns:
        A DatasetInfo. Shape (3,H,W), class names, and number of images of each split. H and W are `options.size`, or 96
        if it is None. The split sizes are the published ones, 4,500 / 500 / 8,000 for train, validation and test. If
        `options.verify` is False and all files exist, the images in the files are counted. The validation split is then
        the last 500 training images if there are 5,000 of them, else the last tenth.

    Raises:
        UserError: if `options.verify` is False and a file is broken or holds fewer than two training images.
    """
    return FILES.adapted_info(INFO, options, [TRAIN], TEST, _count)


def read(split: str, options: DataOptions):
    """Reads one split from the files in `options.folder`, which must exist: `fetch` makes them.

    Args:
        split: "train", "validation" or "test".
        options: fields of DataOptions: `folder` of the files, `size` of the returned images, and `verify`: whether the
            files' checksums are compared with the published ones.

    Returns:
        A pair (images, labels): a torch tensor of images, uint8 [N,3,H,W], and a NumPy array of labels, int64 [N]. H
        and W are `options.size`, or 96 if it is None.

    Raises:
        UserError: if a file is broken or has another checksum than the published one, or if it is missing and
            `options.verify` is False.
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
