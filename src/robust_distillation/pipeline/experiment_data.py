"""Images and views of an experiment, as its steps use them.

The step prepare-data writes a file with the hash of each split. Later steps compare the loaded images with that hash.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robust_distillation.config import Experiment
from robust_distillation.data.dataset import Dataset, load
from robust_distillation.data.info import SPLITS, DataOptions
from robust_distillation.data.views import ViewScheme
from robust_distillation.errors import UserError
from robust_distillation.files import CorruptFileError, read_json


def describe_dataset(name: str, options: DataOptions) -> dict[str, Any]:
    """Describes a dataset by the number of images and the hash of each whole split.

    Loads all images. Downloads missing files first, if `options` allow it.

    Args:
        name: name of a registered dataset, for example `cifar10`.
        options: folder of the files, size of the images, and whether files may be downloaded and are compared with
            checksums.

    Returns:
        `{"name": name, "splits": {SPLIT: {"images": count, "sha256": hash}}}` with the splits `train`, `validation` and
        `test`. The command prepare-data writes it to data.json.

    Raises:
        UserError: if the dataset is unknown, or if a file is missing or broken.
    """
    splits = {}
    for split in SPLITS:
        whole = load(name, split, options)
        splits[split] = {"images": len(whole), "sha256": whole.digest()}
    return {"name": name, "splits": splits}


def load_checked(name: str, options: DataOptions, split: str, written: Path) -> Dataset:
    """Loads a whole split and compares its hash with the one in the description that prepare-data wrote.

    Downloads missing files first, if `options` allow it.

    Args:
        name: name of a registered dataset, for example `cifar10`.
        options: folder of the files, size of the images, and whether files may be downloaded and are compared with
            checksums.
        split: `train`, `validation` or `test`.
        written: path of the description (data.json), see `describe_dataset`.

    Returns:
        The split, on the CPU.

    Raises:
        UserError: if the images changed since the description was written, if the description is broken, or if a file
            of the dataset is missing or broken.
        FileNotFoundError: if the description is missing.
    """
    whole = load(name, split, options)
    try:
        expected = read_json(written)["splits"][split]["sha256"]
    except (LookupError, TypeError):
        raise CorruptFileError(written, "it does not describe the data") from None
    if whole.digest() != expected:
        raise UserError(f"{written}: the {split} images changed since it was written. Remove it and start again")
    return whole


def load_split(experiment: Experiment, split: str) -> Dataset:
    """Loads the images of a split that an experiment uses: the first `dataset.limit` ones of the split, or all.

    Under the official protocol the checkpoint is selected on the test split. Then "train" is the training images
    followed by the validation images, and "validation" is the test split.

    Args:
        experiment: the parsed experiment file, with every default filled in. Its data.json must exist.
        split: `train`, `validation` or `test`.

    Returns:
        The images, on the CPU.

    Raises:
        UserError: if the images changed since prepare-data wrote data.json, or if a file of the dataset is missing or
            broken.
        FileNotFoundError: if data.json is missing.
    """
    if not experiment.selects_on_test:
        used = _whole(experiment, split)
    elif split == "train":
        used = _whole(experiment, "train").followed_by(_whole(experiment, "validation"))
    else:
        used = _whole(experiment, "test")
    return used.first(getattr(experiment.dataset.limit, split))


def _whole(experiment: Experiment, split: str) -> Dataset:
    """Loads a whole split of an experiment's dataset."""
    return load_checked(experiment.dataset.name, experiment.data_options, split, experiment.layout.data)


def view_scheme(experiment: Experiment) -> ViewScheme:
    """Returns the views of a training image: all crops of the zero-padded image, and perhaps their mirror images.

    Args:
        experiment: the experiment. `dataset.padding` is the width of the border of zeros in pixels. Crops are also
            mirrored if a mirrored image of the dataset keeps its class.
    """
    return ViewScheme(experiment.dataset.padding, experiment.info.flips)
