"""Where a student's teacher answers from: the cache for clean views, the live teacher for adversarial images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from robust_distillation.cache.live import LiveTeacher
from robust_distillation.cache.store import CachedTeacher, CachedValues, cache_key, description_of
from robust_distillation.config import Experiment
from robust_distillation.data.dataset import Dataset
from robust_distillation.files import sha256
from robust_distillation.methods import Needs
from robust_distillation.models.precision import loaded
from robust_distillation.pipeline.experiment_data import scheme_of


@dataclass(frozen=True)
class Teaching:
    """The teacher, the width of its features (0 where none are asked for), the files it reads with their sha256, and
    for the record where each kind of answer comes from."""

    teacher: CachedTeacher
    features: int
    files: dict[Path, str]
    served_from: dict[str, str]


def key_of(experiment: Experiment, teacher: str, kind: str, data: Dataset) -> dict[str, Any]:
    return cache_key(sha256(experiment.teacher_weights(teacher)), data.digest(), scheme_of(experiment), kind)


def teaching(experiment: Experiment, teacher: str, needs: Needs, data: Dataset, device: torch.device) -> Teaching:
    """What a method that `needs` a teacher is given; refuses a cache of another teacher, other data or views."""
    layout, weights = experiment.layout, experiment.teacher_weights(teacher)
    files, served, values, live = {weights: sha256(weights)}, {}, {}, None
    for kind in needs.cached:
        path = layout.cache(teacher, kind)
        values[kind] = CachedValues(path, key_of(experiment, teacher, kind, data))
        # The array's hash was written when it was filled: hashing it again would read it all.
        files |= {path: values[kind].description["sha256"], description_of(path): sha256(description_of(path))}
        served[f"{kind} on clean views"] = "cache"
    if needs.teacher_adversarial:
        live = LiveTeacher(loaded(weights, experiment.compute.precision, device))
        served["logits on adversarial images"] = "live teacher"
    width = values["features"].width if "features" in values else 0
    return Teaching(CachedTeacher(**values, live=live), width, files, served)
