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
    """Returns image shape, classes and split sizes of CIFAR-100. The files may be absent.

    H and W of the shape are `options.size` if it is set. With `options.verify` False, the split sizes are those of your
    own files, if all of them exist.
    """
    return FILES.adapted_info(INFO, options, [TRAIN], TEST, cifar_batches.count)


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
    images, labels = cifar_batches.read(FILES, [TEST if split == "test" else TRAIN], options, "fine_labels")
    rows = FILES.split_slice(split, len(labels), INFO, options)
    return resize(images[rows], options.size), labels[rows]
