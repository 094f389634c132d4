"""The data of an experiment as its steps use them: checked against what prepare-data wrote down, then limited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robust_distillation.config import Experiment
from robust_distillation.data.dataset import Dataset, load
from robust_distillation.data.info import SPLITS, DataOptions
from robust_distillation.data.views import ViewScheme
from robust_distillation.errors import UserError
from robust_distillation.files import Damaged, read_json
from robust_distillation.layout import Layout


def description(name: str, options: DataOptions) -> dict[str, Any]:
    """Name, and size and hash of every whole split; fetches files that are missing."""
    splits = {}
    for split in SPLITS:
        found = load(name, split, options)
        splits[split] = {"images": len(found), "sha256": found.digest()}
    return {"name": name, "splits": splits}


def checked(name: str, options: DataOptions, split: str, written: Path) -> Dataset:
    """A whole split. Raises UserError where the files changed since prepare-data wrote `written`."""
    whole = load(name, split, options)
    try:
        known = read_json(written)["splits"][split]["sha256"]
    except (LookupError, TypeError):
        raise Damaged(written, "it does not describe the data") from None
    if whole.digest() != known:
        raise UserError(f"{written}: the {split} images changed since it was written. Remove it and start again")
    return whole


def split_of(experiment: Experiment, split: str) -> Dataset:
    """The images of a split that the experiment uses. Raises UserError where the files changed since prepare-data.

    Where the experiment selects on the test set, as the papers' codes do, all training images in the order of the
    files are `train`, and `validation` is the test split.
    """
    if not experiment.selects_on_test:
        used = _whole(experiment, split)
    elif split == "train":
        used = _whole(experiment, "train").followed_by(_whole(experiment, "validation"))
    else:
        used = _whole(experiment, "test")
    return used.first(getattr(experiment.dataset.limit, split))


def _whole(experiment: Experiment, split: str) -> Dataset:
    return checked(experiment.dataset.name, experiment.data_options, split, Layout(experiment.name).data)


def scheme_of(experiment: Experiment) -> ViewScheme:
    return ViewScheme(experiment.dataset.padding, experiment.info.flips)
