"""Fills a cache with a teacher's answers to views of every training image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.cache.fill import fill_cache
from robust_distillation.device import select_device
from robust_distillation.models.precision import load_for_inference
from robust_distillation.pipeline.experiment_data import views_of
from robust_distillation.pipeline.teacher_source import key_of
from robust_distillation.pipeline.training_data import load_training

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import FillCache
    from robust_distillation.resume import ResumableJob


def run(step: FillCache, work: ResumableJob) -> None:
    """Writes the logits or features of a teacher on views of every training image (.npy), with a description (.json).

    `pipeline.run.run_step` calls this function for a job (one run) of the workflow step fill-cache or fill-records. A
    view is what an augmentation makes of an image. The description lies beside the array and states what it was
    computed from.

    Args:
        step: the job. `step.cache` has the name of the teacher, the kind of output (`logits` or `features`) and the
            views. The array is `step.outputs[0]`, for example results/digits/cache/wide/logits.npy.
        work: the resumable job, entered as a context manager by `pipeline.run`: progress is saved there, and a killed
            job continues from it.
    """
    experiment, cache = step.experiment, step.cache
    device, data = select_device(experiment.compute), load_training(experiment)
    key, views = key_of(experiment, cache, data), views_of(experiment, cache.views)
    model = load_for_inference(experiment.teacher_weights(cache.teacher), experiment.compute.precision, device)
    fill_cache(step.outputs[0], key, model, data, views, cache.kind, device, work)
