"""Training images of an experiment: its training split, followed by extra images if it has any, and their labels.

The step prepare-extra writes the number and the hash of the extra images, and label-extra the labels that a teacher
predicts. Later steps compare what they read with them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from robust_distillation.config import Experiment
from robust_distillation.data import extra
from robust_distillation.data.dataset import Dataset
from robust_distillation.errors import UserError
from robust_distillation.files import CorruptFileError, read_json
from robust_distillation.pipeline.experiment_data import load_rest, load_split


def describe_extra(experiment: Experiment) -> dict[str, Any]:
    """Describes the extra images of an experiment, which must have some. Loads all of them.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.

    Returns:
        `{"source": path, "images": count, "sha256": hash of images and labels, "by_class": counts}`, with the number of
        images of each class; None in place of the numbers if the images are used without labels.

    Raises:
        UserError: if the images are missing, are broken or do not fit the dataset.
    """
    data, source = _read_extra(experiment), experiment.extra_source.path or "the rest of the training split"
    return {"source": source, "images": len(data), "sha256": data.digest(), "by_class": _by_class(data)}


def _read_extra(experiment: Experiment) -> Dataset:
    """Loads the extra images from their source."""
    source = experiment.extra_source
    if source.path is None:
        return extra.chosen(source, load_rest(experiment))
    return extra.load(source, experiment.info)


def _by_class(data: Dataset) -> list[int] | None:
    if int(data.labels.min()) < 0:
        return None
    return data.labels.bincount(minlength=len(data.info.classes)).tolist()


def load_extra(experiment: Experiment) -> Dataset:
    """Loads the extra images of an experiment, which must have some.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it. Its file
            results/EXPERIMENT/extra/data.json, which the step prepare-extra writes, must exist.

    Returns:
        The extra images on the CPU, uint8 [N,C,H,W] in the dataset's range, with the labels of their source; -1 if they
        are used without these.

    Raises:
        UserError: if the images changed since prepare-extra described them, or are missing or broken.
        FileNotFoundError: if the description is missing.
    """
    data, written = _read_extra(experiment), experiment.layout.extra_data
    try:
        expected = read_json(written)["sha256"]
    except (LookupError, TypeError):
        raise CorruptFileError(written, "it does not describe the extra images") from None
    if data.digest() != expected:
        raise UserError(f"{written}: the extra images changed since it was written. Remove it and start again")
    return data


def load_training(experiment: Experiment, *, with_extra: bool = True) -> Dataset:
    """Loads the training images of an experiment: its training split, followed by the extra images.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it. The
            descriptions that prepare-data and prepare-extra write must exist.
        with_extra: False to leave out the extra images.

    Returns:
        The images on the CPU. Extra images have the labels of their source; -1 if they are used without these.

    Raises:
        UserError: if images changed since they were described, or are missing or broken.
        FileNotFoundError: if a description is missing.
    """
    split = load_split(experiment, "train")
    return (
        split.with_extra(load_extra(experiment), experiment.extra.share) if with_extra and experiment.extra else split
    )


def predicted_labels(experiment: Experiment) -> Tensor:
    """Reads the labels of the extra images that a teacher predicted, int64 [N], which the step label-extra wrote.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.

    Raises:
        UserError: if the file is damaged or has not one class for each extra image.
        FileNotFoundError: if the file is missing.
    """
    path = experiment.layout.extra_labels
    try:
        labels = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise CorruptFileError(path, error) from error
    classes = len(experiment.info.classes)
    if (
        labels.dtype != np.int64
        or labels.shape != (experiment.extra_images,)
        or not np.isin(labels, range(classes)).all()
    ):
        raise CorruptFileError(path, f"it has not one of {classes} classes for each extra image")
    return torch.from_numpy(labels)
