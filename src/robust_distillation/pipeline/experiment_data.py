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
    """Describes a dataset by the number of images and the hash of each whole split.

    Loads all images. Downloads missing files first, if `options.download` allows it.

    Args:
        name: name of a registered dataset, for example `cifar10`.
        options: how the files are read: `folder` (str), `size` (side in pixels to which images are resized; None:
            images keep their size), `download` (whether missing files may be downloaded), `verify` (whether files are
            compared with checksums), `mirror` (URL in place of the original one, or None) and `classes` (for
            `image_folder`). `experiment.data_options` is that of an experiment's dataset.

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
    """Loads a whole split and compares its hash with the one in data.json, the description that the step prepare-data
    wrote.

    So a training or an attack never uses other images than the experiment began with. Downloads missing files first, if
    `options.download` allows it.

    Args:
        name: name of a registered dataset, for example `cifar10`.
        options: how the files are read: `folder` (str), `size` (side in pixels to which images are resized; None:
            images keep their size), `download` (whether missing files may be downloaded), `verify` (whether files are
            compared with checksums), `mirror` (URL in place of the original one, or None) and `classes` (for
            `image_folder`). `experiment.data_options` is that of an experiment's dataset.
        split: `train`, `validation` or `test`.
        written: path of the description, for example results/digits/data.json; its content is that of
            `describe_dataset`.

    Returns:
        The split on the CPU: `images` uint8 [N,C,H,W], `labels` int64 [N] and `info` (image shape, class names).

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

    Under `protocol: official` of the experiment file the checkpoint is selected on the test split. Then "train" is the
    training images followed by the validation images, and "validation" is the test split.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it. Its file
            results/EXPERIMENT/data.json, which the step prepare-data writes, must exist.
        split: `train`, `validation` or `test`.

    Returns:
        The split on the CPU: `images` uint8 [N,C,H,W], `labels` int64 [N] and `info` (image shape, class names).

    Raises:
        UserError: if the images changed since prepare-data wrote data.json, or if a file of the dataset is missing or
            broken.
        FileNotFoundError: if data.json is missing.
    """
    return _whole(experiment, split).first(getattr(experiment.dataset.limit, split))


def load_rest(experiment: Experiment) -> Dataset:
    """Loads the training images that an experiment leaves out: those behind the first `dataset.limit.train` ones.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it. Its file
            results/EXPERIMENT/data.json, which the step prepare-data writes, must exist.

    Returns:
        The images on the CPU, as those of `load_split`; none if `dataset.limit.train` is not set.

    Raises:
        UserError: if the images changed since prepare-data wrote data.json, or if a file of the dataset is missing or
            broken.
        FileNotFoundError: if data.json is missing.
    """
    whole = _whole(experiment, "train")
    return whole.after(len(whole.first(experiment.dataset.limit.train)))


def _whole(experiment: Experiment, split: str) -> Dataset:
    """Loads a whole split as an experiment divides its dataset: see `load_split`."""

    def files(name: str) -> Dataset:
        return load_checked(experiment.dataset.name, experiment.data_options, name, experiment.layout.data)

    if not experiment.selects_on_test:
        return files(split)
    return files("train").followed_by(files("validation")) if split == "train" else files("test")


def views_of(experiment: Experiment, views: ViewSet) -> Views:
    """Returns the numbered views of the training images; a view is what the augmentation makes of an image.

    Args:
        experiment: the parsed experiment file, as `config.load` returns it. `dataset.padding` and the dataset's pixel
            range and flips are used.
        views: the augmentation with its options, the seed and the epochs of a training, as `experiment.view_set`
            returns them.

    Returns:
        The views, for example `ViewScheme(padding=4, flips=True)` for all crops and flips. `len(views)` is their number
        for each image, and `views.apply(images, ids, views)` computes some of them.
    """
    return views.augmentation.views(experiment.info, experiment.dataset.padding, views.seed, views.epochs)
