"""Trains a teacher, a student, or a candidate (a combination of hyperparameter values) of the tuning stage."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from robust_distillation.device import select_device
from robust_distillation.models.precision import EXACT, should_compile
from robust_distillation.pipeline.experiment_data import load_split, views_of
from robust_distillation.pipeline.teacher_source import open_teachers
from robust_distillation.pipeline.training_data import load_training, predicted_labels
from robust_distillation.pipeline.tuned import tuned
from robust_distillation.planning.calls import flops
from robust_distillation.planning.calls import training as work_of
from robust_distillation.training import parallel
from robust_distillation.training.run import build_trainer, train_to_files, tune_to_file
from robust_distillation.training.teacher import Teachers

if TYPE_CHECKING:
    from robust_distillation.config import Recipe
    from robust_distillation.pipeline.steps import TrainStudent, TrainTeacher, Tune
    from robust_distillation.resume import ResumableJob


def train_teacher(step: TrainTeacher, work: ResumableJob | None) -> dict[str, Any]:
    """Trains a teacher and writes the checkpoints `best` and `last` and the training curves to
    results/EXPERIMENT/teachers/TEACHER.

    `pipeline.run.run_step` calls this function for a job (one run) of the workflow step train-teacher. The files are
    best.safetensors, last.safetensors and metrics.jsonl (one line of JSON per epoch).

    Args:
        step: the job, with the parsed experiment file, the name of the teacher and its settings. With several devices,
            this function runs in one process per device.
        work: the resumable job, entered as a context manager by `pipeline.run`: progress is saved there, and a killed
            job continues from it. None in all processes but the first, which alone writes.

    Returns:
        Entries for the record, the JSON file beside the outputs (inputs, settings, code hash and hashes of the
        outputs): `teacher_served_from` (an empty dict) and `compiled` (whether torch.compile was used). Empty in all
        processes but the first.

    Raises:
        UserError: if the images changed, or if a loss or a weight is not finite.
    """
    return train(step, work, step.settings, step.teacher.recipe, role="teacher")


def train_student(step: TrainStudent, work: ResumableJob | None) -> dict[str, Any]:
    """Trains a student and writes the checkpoints `best` and `last` and the training curves to its folder.

    `pipeline.run.run_step` calls this function for a job (one run) of the workflow step train-student. The files are
    best.safetensors, last.safetensors and metrics.jsonl (one line of JSON per epoch), below
    results/EXPERIMENT/students/TEACHER/STUDENT/METHOD/seed-N. If the experiment has a tuning stage, the hyperparameter
    values that it chose (choice.json) are used.

    Args:
        step: the job, with the parsed experiment file and the names of teacher, student and method and the seed.
        work: the resumable job, entered as a context manager by `pipeline.run`: progress is saved there, and a killed
            job continues from it.

    Returns:
        Entries for the record, the JSON file beside the outputs (inputs, settings, code hash and hashes of the
        outputs): `settings` (those of this training, after the choice), `teacher_served_from` (kind of a teacher's
        output to its source: `cache`, `live teacher` or `checkpoint`, for example `{"logits on clean views": "cache"}`)
        and `compiled` (whether torch.compile was used).

    Raises:
        UserError: if the images changed, if the file of the choice, a cache or a teacher's checkpoint cannot be read,
            or if a loss or a weight is not finite.
    """
    settings, recipe = tuned(step)
    more = train(step, work, settings, recipe, role="student", teacher=step.values["teacher"])
    return {"settings": settings, **more}


def train_candidate(step: Tune, work: ResumableJob | None) -> dict[str, Any]:
    """Trains a candidate of the tuning stage for a few epochs and writes the training curves (metrics.jsonl) to its
    folder.

    `pipeline.run.run_step` calls this function for a job (one run) of the workflow step tune. A candidate is a
    combination of hyperparameter values. Its folder is for example
    results/digits/tuning/wide/small/rslad/learning_rate=0.1. A training that diverges is a result, not an error: the
    last line of the curves then has `"diverged": true`.

    Args:
        step: the job, with the parsed experiment file and the names of teacher, student, method and candidate.
        work: the resumable job, entered as a context manager by `pipeline.run`: progress is saved there, and a killed
            job continues from it.

    Returns:
        Entries for the record, the JSON file beside the outputs (inputs, settings, code hash and hashes of the
        outputs): `teacher_served_from` (kind of a teacher's output to its source: `cache`, `live teacher` or
        `checkpoint`, for example `{"logits on clean views": "cache"}`) and `compiled` (whether torch.compile was used).

    Raises:
        UserError: if the images changed, or if a cache or a teacher's checkpoint cannot be read.
    """
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
    """Trains a teacher, a student or a candidate of the tuning stage, and writes its files to `step.folder`.

    It writes the checkpoints best.safetensors and last.safetensors and the training curves (metrics.jsonl); for a
    candidate, a combination of hyperparameter values, only the curves. If several processes share the training, only
    the first writes.

    Args:
        step: the job, an instance of `pipeline.steps.TrainTeacher`, `TrainStudent` or `Tune`, with the parsed
            experiment file (`step.experiment`) and the folder of the training (`step.folder`).
        work: the resumable job, entered as a context manager: progress is saved there, and a killed job continues from
            it. None in all processes but the first.
        settings: all settings that the training depends on, as JSON values: `protocol`, `dataset`, `threat_model`,
            `training`, `compute`, `architecture`, `method`, `seed`. They also become metadata of the checkpoints.
        recipe: `recipe.method`, the distillation or training method with its settings, and `recipe.training`, the
            training settings: epochs, optimiser, inner attack.
        role: kind of the network, for the metadata of the checkpoints: `teacher`, `student` or `candidate`.
        teacher: name of a teacher, for example `wide`, or of an entry such as `pair: {roles: {robust: wrn, natural:
            resnet}}` under `teachers` in the experiment file, which names one teacher for each role (name under which
            the method calls a teacher); `none` for a method without a teacher. None for the training of a teacher.

    Returns:
        Entries for the record, the JSON file beside the outputs (inputs, settings, code hash and hashes of the
        outputs): `teacher_served_from` (kind of a teacher's output to its source: `cache`, `live teacher` or
        `checkpoint`; empty without a teacher) and `compiled` (whether torch.compile was used). Empty in all processes
        but the first.

    Raises:
        UserError: if the images changed, or if a cache or a teacher's checkpoint cannot be read.
        Diverged: if a loss or a weight is not finite. A candidate does not raise it.
    """
    experiment = step.experiment
    device, data = select_device(experiment.compute), load_training(experiment, with_extra=step.has_extra)
    method, teachers, served = recipe.method.settings, Teachers(), {}
    views = experiment.view_set(recipe.training, settings["seed"])
    if recipe.method.has_teacher:
        source = open_teachers(experiment, teacher, method, views, data, device)
        teachers, served = source.teachers, source.served_from
    if step.has_predicted_labels:  # after the caches, which are of the images with the labels of their source
        data = data.with_extra_labels(predicted_labels(experiment))
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
