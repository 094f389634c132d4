"""Images and views of an experiment, as its steps use them.

The step prepare-data writes a file with the hash of each split. Later steps compare the loaded images with that hash.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robust_distillation.config import Experiment, ViewSet
from robust_distillation.data.dataset import Dataset, load
from robust_distillation.data.info import SPLITS, DataOptions
from robust_distillation.data.views import Views
from robust_distillation.errors import UserError
from robust_distillation.files import CorruptFileError, read_json


def describe_dataset(name: str, options: DataOptions) -> dict[str, Any]:
    """Describes a dataset by the size and hash of each whole split. Downloads missing files, if `options` allow it.

    Returns:
        `{"name": name, "splits": {SPLIT: {"images": count, "sha256": hash}}}`, the content that prepare-data writes.

    Raises:
        UserError: if the dataset is unknown, or if a file is missing or broken.
    """
    splits = {}
    for split in SPLITS:
        whole = load(name, split, options)
        splits[split] = {"images": len(whole), "sha256": whole.digest()}
    return {"name": name, "splits": splits}


def load_checked(name: str, options: DataOptions, split: str, written: Path) -> Dataset:
    """Loads a whole split and compares it with the description that prepare-data wrote.

    Args:
        name: name of the dataset.
        options: folder, size and checksum options.
        split: "train", "validation" or "test".
        written: path of the description.

    Raises:
        UserError: if the images changed since the description was written, or if the description or a file of the
            dataset is missing or broken.
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

    If the experiment selects the checkpoint on the test set, as the papers' codes do, "train" are the training and
    validation images in file order, and "validation" is the test split.

    split: "train", "validation" or "test".

    Raises:
        UserError: if the images changed since prepare-data, or if a file is missing or broken.
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


def views_of(experiment: Experiment, views: ViewSet) -> Views:
    """Returns the views that a set names, as an augmentation makes them of an experiment's training images."""
    return views.augmentation.views(experiment.info, experiment.dataset.padding, views.seed, views.epochs)
