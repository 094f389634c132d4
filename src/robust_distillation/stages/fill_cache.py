"""Fills a cache with a teacher's answers to every view of every training image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.cache.fill import fill_cache
from robust_distillation.device import select_device
from robust_distillation.models.precision import loaded
from robust_distillation.pipeline.experiment_data import scheme_of, split_of
from robust_distillation.pipeline.teacher_source import key_of

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import FillCache
    from robust_distillation.resume import Work


def run(step: FillCache, work: Work) -> None:
    """Writes the cache's array and its description."""
    experiment, teacher, kind = step.experiment, step.values["teacher"], step.values["kind"]
    device, data, scheme = select_device(experiment.compute), split_of(experiment, "train"), scheme_of(experiment)
    key = key_of(experiment, teacher, kind, data)
    model = loaded(experiment.teacher_weights(teacher), experiment.compute.precision, device)
    fill_cache(step.outputs[0], key, model, data, scheme, kind, device, work)
