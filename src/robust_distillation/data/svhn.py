"""SVHN (Netzer et al., 2011): 32x32 colour images of house numbers, read from FOLDER/{train,test}_32x32.mat.

The label 10 of the files is the digit 0 and becomes label 0, as in torchvision. The last 5,000 training images are the
validation split. The `extra` images are not used.
"""

from __future__ import annotations

from pathlib import Path

from robust_distillation.data.info import DataOptions, DatasetInfo
from robust_distillation.data.published import Download, PublishedFiles
from robust_distillation.data.resizing import resize

INFO = DatasetInfo(
    shape=(3, 32, 32),
    classes=tuple("0123456789"),
    flips=False,
    sizes={"train": 68257, "validation": 5000, "test": 26032},
)
MD5 = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}
TRAIN, TEST = MD5
FILES = PublishedFiles(
    "svhn",
    "http://ufldl.stanford.edu/housenumbers/",
    tuple(Download(name, md5, (name,)) for name, md5 in MD5.items()),
    md5=MD5,
)
check, fetch = FILES.check, FILES.fetch


def info(options: DataOptions) -> DatasetInfo:
    """Returns image shape, classes and split sizes of SVHN, as read with `options`. The files may be absent.

    Args:
        options: fields of DataOptions: `folder` of the files, `size` of the images, and `verify`: False for your own
            files in the same format.

    Returns:
        A DatasetInfo. Shape (3,H,W), class names, and number of images of each split. H and W are `options.size`, or 32
        if it is None. The split sizes are the published ones, 68,257 / 5,000 / 26,032 for train, validation and test.
        If `options.verify` is False and all files exist, the images in the files are counted. The validation split is
        then the last 5,000 training images if there are 73,257 of them, else the last tenth.

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
        and W are `options.size`, or 32 if it is None.

    Raises:
        UserError: if a file is broken or has another checksum than the published one, or if it is missing and
            `options.verify` is False.
    """
    import numpy as np
    from scipy.io import loadmat

    path = FILES.verified_path(TEST if split == "test" else TRAIN, options)
    with FILES.reading_errors(path):
        content = loadmat(path, appendmat=False, variable_names=["X", "y"])
        if not {"X", "y"} <= set(content):
            raise ValueError("it holds no X and y")
        images, labels = content["X"], content["y"].reshape(-1)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (32, 32, 3):
            raise ValueError(f"its X is {images.dtype} {images.shape}, not uint8 (32, 32, 3, N)")
        if labels.dtype.kind not in "iu" or len(labels) != images.shape[3]:
            raise ValueError(f"it holds {images.shape[3]} images and {len(labels)} labels of {labels.dtype}")
    rows = FILES.split_slice(split, len(labels), INFO, options)
    labels = labels[rows].astype(np.int64)
    labels[labels == 10] = 0
    return resize(np.ascontiguousarray(images[..., rows].transpose(3, 2, 0, 1)), options.size), labels


def _count(path: Path) -> int:
    """Returns the number of images in a file, read from its header. Raises ValueError if it has no images."""
    from scipy.io import whosmat

    shapes = {name: shape for name, shape, _ in whosmat(path, appendmat=False)}
    if len(shapes.get("X", ())) != 4:
        raise ValueError("it holds no X of images")
    return shapes["X"][3]
