"""The teachers of a student: clean views are served from the cache, other images by the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from robust_distillation.cache.store import CachedValues, cache_key
from robust_distillation.config import Experiment
from robust_distillation.data.dataset import Dataset
from robust_distillation.files import sha256
from robust_distillation.methods import TEACHER, Method
from robust_distillation.models.checkpoint import load_model
from robust_distillation.models.precision import load_for_inference
from robust_distillation.pipeline.experiment_data import view_scheme
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


def key_of(experiment: Experiment, teacher: str, kind: str, data: Dataset) -> dict[str, Any]:
    """Returns the key of a teacher's cache: everything that determines the cached values. A cache with another key is
    refused.

    Hashes the teacher's checkpoint file and the images.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        teacher: name of the teacher, for example `wide`.
        kind: kind of the cached outputs: `logits` or `features`.
        data: the training images, uint8 [N,C,H,W] with labels, from `pipeline.experiment_data.load_split(experiment,
            "train")`.

    Returns:
        A dict with `teacher` (sha256 of the checkpoint file), `data` (sha256 of the images), `padding` (pixels) and
        `flips` (bool) of the views (crops and flips), and `kind`.
    """
    return cache_key(sha256(experiment.teacher_weights(teacher)), data.digest(), view_scheme(experiment), kind)


def open_teachers(
    experiment: Experiment, names: str, method: Method, data: Dataset, device: torch.device
) -> TeacherSource:
    """Opens the caches and loads the networks of all teachers that a distillation method asks.

    Only what the method declares is opened: cached outputs, a network for other images, a network to train together
    with the student. The files are those below results/EXPERIMENT/cache and results/EXPERIMENT/teachers.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        names: name of a teacher, for example `wide`, or of an entry of the experiment file that assigns a teacher to
            each role of a method, for example `robust` and `natural`.
        method: the distillation method. Its `teachers()` declares the calls to the teacher of each role.
        data: the training images, uint8 [N,C,H,W] with labels, from `pipeline.experiment_data.load_split(experiment,
            "train")`. Their hash is compared with that in the cache.
        device: the device of the networks. Networks that are trained together with the student stay on the CPU.

    Returns:
        The teachers with their networks in eval mode and without gradients in the weights, and the sources of their
        outputs.

    Raises:
        UserError: if a cache or checkpoint is missing or damaged, or if a cache belongs to another teacher, other data
            or other views.
    """
    teachers = experiment.roles(names)
    served, by_role, features, copies = {}, {}, {}, {}
    for role, calls in method.teachers().items():
        teacher, values, network = teachers[role], {}, None
        weights = experiment.teacher_weights(teacher)
        prefix = "" if role == TEACHER else f"{role}: "
        for kind in calls.cached:
            path = experiment.layout.cache(teacher, kind)
            values[kind] = CachedValues(path, key_of(experiment, teacher, kind, data))
            served[f"{prefix}{kind} on clean views"] = "cache"
        if calls.live or calls.gradient:
            network = load_for_inference(weights, experiment.compute.precision, device)
            served[f"{prefix}logits on adversarial images"] = "live teacher"
        if calls.trained:
            copies[role] = load_model(weights)
            served[f"{prefix}weights to train along"] = "checkpoint"
        if "features" in values:
            features[role] = values["features"].width
        by_role[role] = Teacher(network, **values)
    return TeacherSource(Teachers(by_role, features, copies), served)
