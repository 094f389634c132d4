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
    """Returns image shape, classes and split sizes of CIFAR-10. The files may be absent.

    H and W of the shape are `options.size` if it is set. With `options.verify` False, the split sizes are those of your
    own files, if all of them exist.
    """
    return FILES.adapted_info(INFO, options, TRAIN, TEST, cifar_batches.count)


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
    images, labels = cifar_batches.read(FILES, [TEST] if split == "test" else TRAIN, options, "labels")
    rows = FILES.split_slice(split, len(labels), INFO, options)
    return resize(images[rows], options.size), labels[rows]
