"""CIFAR-100 (Krizhevsky, 2009): 32x32 colour images, read from FOLDER/cifar-100-python as torchvision stores them.

The labels are the 100 fine ones. The last 5,000 training images are the validation split.
"""

from __future__ import annotations

from robust_distillation.data import cifar_batches
from robust_distillation.data.info import DataOptions, DatasetInfo
from robust_distillation.data.published import Download, PublishedFiles
from robust_distillation.data.resizing import resize

CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""
INFO = DatasetInfo(
    shape=(3, 32, 32),
    classes=tuple(CLASSES.split()),
    flips=True,
    sizes={"train": 45000, "validation": 5000, "test": 10000},
)
MD5 = {
    "cifar-100-python/train": "16019d7e3df5f24257cddd939b257f8d",
    "cifar-100-python/test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
}
TRAIN, TEST = MD5
FILES = PublishedFiles(
    "cifar100",
    "https://www.cs.toronto.edu/~kriz/",
    (Download("cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", tuple(MD5)),),
    md5=MD5,
)
check, fetch = FILES.check, FILES.fetch


def info(options: DataOptions) -> DatasetInfo:
    """Returns image shape, classes and split sizes of CIFAR-100, as read with `options`. The files may be absent.

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
    return FILES.adapted_info(INFO, options, [TRAIN], TEST, cifar_batches.count)


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
    images, labels = cifar_batches.read(FILES, [TEST if split == "test" else TRAIN], options, "fine_labels")
    rows = FILES.split_slice(split, len(labels), INFO, options)
    return resize(images[rows], options.size), labels[rows]
