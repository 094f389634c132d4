"""Trains a teacher, a student, or a candidate for a method's settings."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from robust_distillation.device import select_device
from robust_distillation.models.precision import EXACT, should_compile
from robust_distillation.pipeline.experiment_data import load_split, views_of
from robust_distillation.pipeline.teacher_source import open_teachers
from robust_distillation.pipeline.tuned import tuned
from robust_distillation.planning.cost import flops
from robust_distillation.planning.cost import training as work_of
from robust_distillation.training import parallel
from robust_distillation.training.run import build_trainer, train_to_files, tune_to_file
from robust_distillation.training.teacher import Teachers

if TYPE_CHECKING:
    from robust_distillation.config import Recipe
    from robust_distillation.pipeline.steps import TrainStudent, TrainTeacher, Tune
    from robust_distillation.resume import ResumableJob


def train_teacher(step: TrainTeacher, work: ResumableJob | None) -> dict[str, Any]:
    """Writes best and last checkpoint and the curves; with several devices, in a process for each."""
    return train(step, work, step.settings, step.teacher.recipe, role="teacher")


def train_student(step: TrainStudent, work: ResumableJob | None) -> dict[str, Any]:
    """Writes best and last checkpoint and the curves; trains with the settings that the tuning stage chose."""
    settings, recipe = tuned(step)
    more = train(step, work, settings, recipe, role="student", teacher=step.values["teacher"])
    return {"settings": settings, **more}


def train_candidate(step: Tune, work: ResumableJob | None) -> dict[str, Any]:
    """Writes the curves of a short training."""
    return train(step, work, step.settings, step.recipe, role="candidate", teacher=step.values["teacher"])


def train(
    step: TrainTeacher | TrainStudent | Tune,
    work: ResumableJob | None,
    settings: dict[str, Any],
    recipe: Recipe,
    *,
    role: str,
    teacher: str | None = None,
) -> dict[str, Any]:
    """Trains a teacher, a student or a candidate of the tuning stage, and writes its files.

    Args:
        step: the declaration of the training.
        work: saves the state of the training; None in all processes of a group but the first.
        settings: the resolved settings.
        recipe: the method and its training settings.
        role: `teacher`, `student` or `candidate`.
        teacher: the name under which the teachers of the method stand in runs; None for the training of a teacher.

    Returns:
        Further entries of the provenance record.
    """
    experiment = step.experiment
    device, data = select_device(experiment.compute), load_split(experiment, "train")
    method, teachers, served = recipe.method.settings, Teachers(), {}
    views = experiment.view_set(recipe.training, settings["seed"])
    if recipe.method.has_teacher:
        source = open_teachers(experiment, teacher, method, views, data, device)
        teachers, served = source.teachers, source.served_from
    group, precision = parallel.init_group(device), experiment.compute.precision
    compiled = precision != EXACT and should_compile(  # to count the FLOPs takes a second
        experiment.compute, flops(work_of(experiment, recipe, settings["architecture"], teacher)), device.type
    )
    trainer = build_trainer(
        settings, recipe.training, method, experiment.threat_model, data, device, teachers, group, precision, compiled
    )
    images = data, load_split(experiment, "validation"), views_of(experiment, views), device
    if group.rank:  # the first process saves, writes and logs for all
        logging.getLogger().setLevel(logging.WARNING)
        train_to_files(step.folder, settings, trainer, *images, {})
        return {}
    if role == "candidate":
        tune_to_file(step.folder, trainer, *images, work)
    else:
        description = {
            "role": role,
            "teacher": teacher,
            "training_images": data.digest(),
            "hashes": {str(file): known for file, known in work.configuration["inputs"].items()},
        }
        train_to_files(step.folder, settings, trainer, *images, description, work)
    return {"teacher_served_from": served, "compiled": compiled}
