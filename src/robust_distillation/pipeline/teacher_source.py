"""The teachers of a student: clean views are served from the cache, other images by the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from robust_distillation.cache.store import CachedValues, cache_key
from robust_distillation.config import Cache, Experiment, ViewSet
from robust_distillation.data.dataset import Dataset
from robust_distillation.files import sha256
from robust_distillation.methods import TEACHER, Method
from robust_distillation.models.checkpoint import load_model
from robust_distillation.models.precision import load_for_inference
from robust_distillation.pipeline.experiment_data import views_of
from robust_distillation.training.teacher import Teacher, Teachers


@dataclass(frozen=True)
class TeacherSource:
    """The teachers of one training, and the sources of their outputs. `open_teachers` returns it.

    Attributes:
        teachers: the teachers: `by_role` maps a role (the part of a teacher in the method: `teacher`, or for MTARD
            `robust` and `natural`) to its network and cached outputs. It also has the widths of cached features and the
            copies that are trained.
        served_from: kind of output to its source (`cache`, `live teacher` or `checkpoint`), for the record of the
            training, for example `{"logits on clean views": "cache", "logits on adversarial images": "live teacher"}`.
            Keys of another role than `teacher` begin with the role, as in `natural: logits on clean views`.
    """

    teachers: Teachers
    served_from: dict[str, str]


def key_of(experiment: Experiment, cache: Cache, data: Dataset) -> dict[str, Any]:
    """Returns the key of a teacher's cache: weights, images, views and kind of output, which determine its values.

    Args:
        experiment: the resolved experiment.
        cache: the cache.
        data: the training images.
    """
    weights = experiment.teacher_weights(cache.teacher)
    return cache_key(sha256(weights), data.digest(), views_of(experiment, cache.views), cache.kind)


def open_teachers(
    experiment: Experiment, names: str, method: Method, views: ViewSet, data: Dataset, device: torch.device
) -> TeacherSource:
    """Opens the caches and loads the networks of all teachers that a distillation method asks.

    Only what the method declares is opened: cached outputs, a network for other images, a network to train together
    with the student. If the augmentation asks the teachers live, networks take the place of cached outputs. The files
    are those below results/EXPERIMENT/cache and results/EXPERIMENT/teachers.

    Args:
        experiment: the resolved experiment.
        names: a teacher's name, or the name of an entry that gives several teachers a role each.
        method: the method, which declares its calls by role.
        views: the views of the training.
        data: the training images.
        device: the device of the networks.

    Raises:
        UserError: if a cache or checkpoint is missing or damaged, or if a cache belongs to another teacher, other data
            or other views.
    """
    teachers, live = experiment.roles(names), views.augmentation.asks_live
    served, by_role, features, copies = {}, {}, {}, {}
    for role, calls in method.teachers().items():
        teacher, values, network = teachers[role], {}, None
        weights = experiment.teacher_weights(teacher)
        prefix = "" if role == TEACHER else f"{role}: "
        for kind in calls.cached:
            served[f"{prefix}{kind} on clean views"] = "live teacher" if live else "cache"
            if not live:
                path = experiment.layout.cache(teacher, kind, views.name)
                values[kind] = CachedValues(path, key_of(experiment, Cache(teacher, kind, views), data))
        if calls.live or calls.gradient or (live and calls.cached):
            network = load_for_inference(weights, experiment.compute.precision, device)
        if calls.live or calls.gradient:
            served[f"{prefix}logits on adversarial images"] = "live teacher"
        if calls.trained:
            copies[role] = load_model(weights)
            served[f"{prefix}weights to train along"] = "checkpoint"
        if "features" in calls.cached:
            features[role] = network.classifier.in_features if live else values["features"].width
        by_role[role] = Teacher(network, **values)
    return TeacherSource(Teachers(by_role, features, copies), served)
