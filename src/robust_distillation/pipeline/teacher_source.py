"""The teachers of a student: clean views are served from the cache, other images by the network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from robust_distillation.cache.store import CachedValues, cache_key, description_of
from robust_distillation.config import Experiment
from robust_distillation.data.dataset import Dataset
from robust_distillation.files import sha256
from robust_distillation.layout import Layout
from robust_distillation.methods import TEACHER, Method
from robust_distillation.models.checkpoint import load_model
from robust_distillation.models.precision import loaded
from robust_distillation.pipeline.experiment_data import scheme_of
from robust_distillation.training.teacher import Teacher, Teachers


@dataclass(frozen=True)
class TeacherSource:
    """The teachers of one training, and what they read.

    Args:
        teachers: the teachers by role.
        files: sha256 of each file that is read.
        served_from: for the record, where each kind of output comes from.
    """

    teachers: Teachers
    files: dict[Path, str]
    served_from: dict[str, str]


def weights_of(experiment: Experiment, teacher: str) -> Path:
    """Returns the path of the checkpoint of a teacher that students learn from."""
    return Layout(experiment.name).teacher(teacher) / f"{experiment.teachers[teacher].checkpoint}.safetensors"


def key_of(experiment: Experiment, teacher: str, kind: str, data: Dataset) -> dict[str, Any]:
    """Returns the key of a teacher's cache: what its values depend on.

    Args:
        experiment: the resolved experiment.
        teacher: name of the teacher.
        kind: `logits` or `features`.
        data: the training images.
    """
    return cache_key(sha256(weights_of(experiment, teacher)), data.digest(), scheme_of(experiment), kind)


def open_teachers(
    experiment: Experiment, names: str, method: Method, data: Dataset, device: torch.device
) -> TeacherSource:
    """Opens the caches and loads the networks of all teachers that a method asks.

    Args:
        experiment: the resolved experiment.
        names: a teacher's name, or that of an entry that gives several teachers a role each.
        method: the method, which declares its calls by role.
        data: the training images.
        device: where the networks go.

    Raises:
        UserError: a cache is damaged, or is that of another teacher, other data or other views.
    """
    layout, teachers = Layout(experiment.name), experiment.roles(names)
    files, served, by_role, features, copies = {}, {}, {}, {}, {}
    for role, calls in method.teachers().items():
        teacher, values, network = teachers[role], {}, None
        weights = weights_of(experiment, teacher)
        files[weights] = sha256(weights)
        prefix = "" if role == TEACHER else f"{role}: "
        for kind in calls.cached:
            path = layout.cache(teacher, kind)
            values[kind] = CachedValues(path, key_of(experiment, teacher, kind, data))
            # The array's hash was written when it was filled: hashing it again would read it all.
            files |= {path: values[kind].description["sha256"], description_of(path): sha256(description_of(path))}
            served[f"{prefix}{kind} on clean views"] = "cache"
        if calls.live or calls.gradient:
            network = loaded(weights, experiment.compute.precision, device)
            served[f"{prefix}logits on adversarial images"] = "live teacher"
        if calls.trained:
            copies[role] = load_model(weights)
            served[f"{prefix}weights to train along"] = "checkpoint"
        if "features" in values:
            features[role] = values["features"].width
        by_role[role] = Teacher(network, **values)
    return TeacherSource(Teachers(by_role, features, copies), files, served)
