"""Fills a cache with a teacher's outputs for every view (crop and flip) of every training image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.cache.fill import fill_cache
from robust_distillation.device import select_device
from robust_distillation.models.precision import load_for_inference
from robust_distillation.pipeline.experiment_data import load_split, view_scheme
from robust_distillation.pipeline.teacher_source import key_of

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import FillCache
    from robust_distillation.resume import ResumableJob


def run(step: FillCache, work: ResumableJob) -> None:
    """Writes the logits or features of a teacher for every view of every training image (.npy), with a description
    (.json).

    `pipeline.run.run_step` calls this function for the workflow step fill-cache. A view is one crop and flip of an
    image. The description lies beside the array and states what it was computed from.

    Args:
        step: the job. `step.values` has the name of the teacher (`teacher`) and the kind of output (`kind`: `logits` or
            `features`). The array is `step.outputs[0]`, for example results/digits/cache/wide/logits.npy.
        work: the resumable job, entered as a context manager by `pipeline.run`: progress is saved there, and a killed
            job continues from it.
    """
    experiment, teacher, kind = step.experiment, step.values["teacher"], step.values["kind"]
    device, data, scheme = select_device(experiment.compute), load_split(experiment, "train"), view_scheme(experiment)
    key = key_of(experiment, teacher, kind, data)
    model = load_for_inference(experiment.teacher_weights(teacher), experiment.compute.precision, device)
    fill_cache(step.outputs[0], key, model, data, scheme, kind, device, work)
