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
    """Teachers of one training, and the sources of their outputs. `open_teachers` returns such an object.

    Attributes:
        teachers: `teachers.by_role` maps a role (name under which the method calls a teacher, such as `robust`) to the
            teacher's network and cached outputs, `teachers.features` to the width of the features,
            `teachers.copies` to the network that is trained further.
        served_from: kind of output to its source (`cache`, `live teacher` or `checkpoint`), for the record of the
            training (the JSON file beside the outputs), for example `{"logits on clean views": "cache", "logits on
            adversarial images": "live teacher"}`. Keys of another role than `teacher` begin with the role, as in
            `natural: logits on clean views`.
    """

    teachers: Teachers
    served_from: dict[str, str]


def key_of(experiment: Experiment, cache: Cache, data: Dataset) -> dict[str, Any]:
    """Returns the key of a teacher's cache: all that determines the stored values, to recognise a cache of other
    values.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        cache: the cache, an element of `experiment.caches`: `teacher` (its name), `kind` (`logits` or `features`) and
            `views` (the augmentation, seed and epochs).
        data: the training split: images uint8 [N,C,H,W] and labels int64 [N], as `data.dataset.load` returns them.

    Returns:
        A dict of JSON values: the sha256 of the teacher's checkpoint, the digest of the training images, the views and
        the kind, as `cache.store.cache_key` returns it.
    """
    weights = experiment.teacher_weights(cache.teacher)
    return cache_key(sha256(weights), data.digest(), views_of(experiment, cache.views), cache.kind)


def open_teachers(
    experiment: Experiment, names: str, method: Method, views: ViewSet, data: Dataset, device: torch.device
) -> TeacherSource:
    """Opens the caches and loads the networks of all teachers of one training.

    For each role only what the method declares is opened: caches of logits or features, a network for images that are
    not cached, a network to train together with the student. With an augmentation whose option `cache` is `live`, a
    network is loaded in place of each cache. The files are those below results/EXPERIMENT/cache and
    results/EXPERIMENT/teachers.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        names: name of a teacher, for example `wide`, or of an entry such as `pair: {roles: {robust: wrn, natural:
            resnet}}` under `teachers` in the experiment file, which names one teacher for each role (name under which
            the method calls a teacher).
        method: the distillation method with its settings; `method.teachers()` declares the calls of each role.
        views: the augmentation with its options, the seed and the epochs of the training, as `experiment.view_set`
            returns them.
        data: the training split: images uint8 [N,C,H,W] and labels int64 [N], as `data.dataset.load` returns them;
            compared with the key of each cache.
        device: the device to which the networks are moved, except those that are trained further (CPU).

    Returns:
        A `TeacherSource`: `teachers` (networks and cached outputs by role) and `served_from` (kind of output to its
        source: `cache`, `live teacher` or `checkpoint`).

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
        if network is not None:
            features[role] = network.classifier.in_features
        elif "features" in values:
            features[role] = values["features"].width
        by_role[role] = Teacher(network, **values)
    return TeacherSource(Teachers(by_role, features, copies), served)
