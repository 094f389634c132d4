"""The data of an experiment as its steps use them: checked against what prepare-data wrote down, then limited."""

from __future__ import annotations

from typing import Any

from robust_distillation.config import Experiment
from robust_distillation.data.dataset import Dataset, load
from robust_distillation.data.views import ViewScheme
from robust_distillation.errors import UserError
from robust_distillation.files import read_json
from robust_distillation.layout import Layout


def description(experiment: Experiment) -> dict[str, Any]:
    """Name, and size and hash of every whole split; fetches files that are missing."""
    splits = {}
    for split in experiment.info.sizes:
        found = load(experiment.dataset.name, split, experiment.dataset.folder)
        splits[split] = {"images": len(found), "sha256": found.digest()}
    return {"name": experiment.dataset.name, "splits": splits}


def split_of(experiment: Experiment, split: str) -> Dataset:
    """The images of a split that the experiment uses. Raises UserError where the files changed since prepare-data."""
    whole = load(experiment.dataset.name, split, experiment.dataset.folder)
    written = Layout(experiment.name).data
    if whole.digest() != read_json(written)["splits"][split]["sha256"]:
        raise UserError(f"{written}: the {split} images changed since it was written. Remove it and start again")
    return whole.first(getattr(experiment.dataset.limit, split))


def scheme_of(experiment: Experiment) -> ViewScheme:
    return ViewScheme(experiment.dataset.padding, experiment.info.flips)
