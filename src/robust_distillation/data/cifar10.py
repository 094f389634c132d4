"""CIFAR-10 (Krizhevsky, 2009): 32x32 colour images, read from FOLDER/cifar-10-batches-py as torchvision stores them.

The last 5,000 training images are the validation split.
"""

from __future__ import annotations

from robust_distillation.data import cifar_batches
from robust_distillation.data.info import DataOptions, DatasetInfo
from robust_distillation.data.published import Download, PublishedFiles
from robust_distillation.data.resizing import resize

INFO = DatasetInfo(
    shape=(3, 32, 32),
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    flips=True,
    sizes={"train": 45000, "validation": 5000, "test": 10000},
)
MD5 = {
    "cifar-10-batches-py/data_batch_1": "c99cafc152244af753f735de768cd75f",
    "cifar-10-batches-py/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "cifar-10-batches-py/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "cifar-10-batches-py/data_batch_4": "634d18415352ddfa80567beed471001a",
    "cifar-10-batches-py/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e",
}
*TRAIN, TEST = MD5
FILES = PublishedFiles(
    "cifar10",
    "https://www.cs.toronto.edu/~kriz/",
    (Download("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", tuple(MD5)),),
    md5=MD5,
)
check, fetch = FILES.check, FILES.fetch


def info(options: DataOptions) -> DatasetInfo:
    """Returns image shape, classes and split sizes of CIFAR-10, as read with `options`. The files may be absent.

    Args:
        options: fields of DataOptions: `folder` of the files, `size` of the images, and `verify`: False for your own
            files in the same format.

    Returns:
        A DatasetInfo. Shape (3,H,W), class names, and number of images of each split. H and W are `options.size`, or 32
        if it is None. The split sizes are the published ones, 45,000 / 5,000 / 10,000 for train, validation and test.
        If `options.verify` is False and all files exist, the images in the files are counted. The validation split is
        then the last 5,000 training images if there are 50,000 of them, else the last tenth.

    Raises:
        UserError: if `options.verify` is False and a file is broken or holds fewer than two training images.
    """
    return FILES.adapted_info(INFO, options, TRAIN, TEST, cifar_batches.count)


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
    images, labels = cifar_batches.read(FILES, [TEST] if split == "test" else TRAIN, options, "labels")
    rows = FILES.split_slice(split, len(labels), INFO, options)
    return resize(images[rows], options.size), labels[rows]
