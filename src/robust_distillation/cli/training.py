"""Teachers, their caches, and students."""

from __future__ import annotations

import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robust_distillation.cli.shared import example, experiment_options, run_named, teacher_named, work_on
from robust_distillation.errors import UserError
from robust_distillation.layout import Layout
from robust_distillation.resume import STOPPERS

if TYPE_CHECKING:
    from robust_distillation.config import Experiment, Recipe


@click.command("train-teacher")
@click.argument("teacher")
@experiment_options
@example("train-teacher wide")
def train_teacher(teacher: str, path: str, overlay: str | None) -> None:
    """Train a teacher of the experiment."""
    from robust_distillation.config import load
    from robust_distillation.pipeline.record import Recorder
    from robust_distillation.pipeline.steps import teacher_code

    experiment = load(path, overlay)
    chosen = teacher_named(experiment, teacher)
    if chosen.imported:
        raise UserError(f"teacher {teacher}: is imported, not trained: robust-distillation import-teacher {teacher}")
    if chosen.devices > 1:
        from robust_distillation.training import parallel

        if not parallel.started():
            parallel.start(chosen.devices)
    layout, settings = Layout(experiment.name), experiment.teacher_settings(teacher)
    recorder = Recorder("train-teacher", settings, teacher_code(experiment, teacher))
    train(experiment, layout.teacher(teacher), settings, recorder, chosen.recipe, role="teacher")


@click.command("import-teacher")
@click.argument("teacher")
@experiment_options
@example("import-teacher wrn-34-10 --experiment experiments/rslad_cifar10.yaml")
def import_teacher(teacher: str, path: str, overlay: str | None) -> None:
    """Import the published weights of a teacher: fetched where a URL is known, and checked."""
    from robust_distillation.config import load
    from robust_distillation.files import sha256
    from robust_distillation.pipeline.import_teacher import import_to_file
    from robust_distillation.pipeline.record import Recorder
    from robust_distillation.pipeline.steps import import_code

    experiment = load(path, overlay)
    if not teacher_named(experiment, teacher).imported:
        raise UserError(f"teacher {teacher}: is trained, not imported: robust-distillation train-teacher {teacher}")
    layout, settings = Layout(experiment.name), experiment.teacher_settings(teacher)
    recorder = Recorder("import-teacher", settings, import_code(experiment, teacher))
    output = layout.teacher(teacher) / "imported.safetensors"
    published = import_to_file(experiment, teacher, output)
    written = {layout.data: sha256(layout.data)}
    recorder.write(output.parent / "record.json", written, [output], published=published)


@click.command("fill-cache")
@click.argument("teacher")
@click.argument("kind", type=click.Choice(["logits", "features"]))
@experiment_options
@example("fill-cache wide logits")
def fill_cache(teacher: str, kind: str, path: str, overlay: str | None) -> None:
    """Store a teacher's logits or features for every view of every training image."""
    from robust_distillation.cache.fill import fill_cache
    from robust_distillation.cache.store import description_of
    from robust_distillation.config import load
    from robust_distillation.device import select_device
    from robust_distillation.files import sha256
    from robust_distillation.models.precision import loaded
    from robust_distillation.pipeline.experiment_data import scheme_of, split_of
    from robust_distillation.pipeline.record import Recorder
    from robust_distillation.pipeline.steps import cache_code
    from robust_distillation.pipeline.teacher_source import key_of, weights_of

    experiment = load(path, overlay)
    teacher_named(experiment, teacher)
    layout = Layout(experiment.name)
    recorder = Recorder("fill-cache", experiment.cache_settings(kind), cache_code(experiment, teacher))
    device, data, scheme = select_device(experiment.compute), split_of(experiment, "train"), scheme_of(experiment)
    weights, output = weights_of(experiment, teacher), layout.cache(teacher, kind)
    inputs, record = {file: sha256(file) for file in (layout.data, weights)}, layout.cache_record(teacher, kind)
    with work_on(experiment, output, record, recorder, inputs) as work:
        if work is None:
            return
        key = key_of(experiment, teacher, kind, data)
        model = loaded(weights, experiment.compute.precision, device)
        fill_cache(output, key, model, data, scheme, kind, device, work)
        recorder.write(record, inputs, [output, description_of(output)], work)


@click.command("train-student")
@click.argument("run")
@experiment_options
@example("train-student wide/small/rslad/seed-0")
def train_student(run: str, path: str, overlay: str | None) -> None:
    """Train one student. RUN is TEACHER/STUDENT/METHOD/seed-N; TEACHER is none where the method needs none."""
    from robust_distillation.config import load
    from robust_distillation.config.tuning import with_candidate
    from robust_distillation.pipeline.record import Recorder
    from robust_distillation.pipeline.steps import student_code
    from robust_distillation.training.tuning import read_choice

    experiment = load(path, overlay)
    chosen = run_named(experiment, run)
    layout, recipe, choice = Layout(experiment.name), experiment.recipes[chosen.method, chosen.student], None
    if experiment.file.tuning:
        choice = layout.choice(chosen.teacher, chosen.student, chosen.method)
        recipe = with_candidate(recipe, read_choice(choice, experiment, chosen.teacher, chosen.student, chosen.method))
    settings = experiment.student_settings(chosen, recipe)
    recorder = Recorder("train-student", settings, student_code(experiment, chosen))
    folder = layout.student(chosen.teacher, chosen.student, chosen.method, chosen.seed)
    train(experiment, folder, settings, recorder, recipe, role="student", teacher=chosen.teacher, choice=choice)


def train(
    experiment: Experiment,
    folder: Path,
    settings: dict[str, Any],
    recorder: Any,
    recipe: Recipe,
    *,
    role: str,
    teacher: str | None = None,
    choice: Path | None = None,
) -> None:
    """Trains a teacher, a student or a candidate of the tuning stage, and writes its files into `folder`.

    choice: the file that `recipe` took values from."""
    from robust_distillation.device import select_device
    from robust_distillation.files import sha256
    from robust_distillation.models.precision import EXACT, compiles
    from robust_distillation.pipeline.experiment_data import scheme_of, split_of
    from robust_distillation.planning.cost import flops
    from robust_distillation.planning.cost import training as work_of
    from robust_distillation.training.parallel import joined
    from robust_distillation.training.run import build_trainer, train_to_files, tune_to_file
    from robust_distillation.training.teacher import Teachers

    written = Layout(experiment.name).data
    device, data, inputs = select_device(experiment.compute), split_of(experiment, "train"), {written: sha256(written)}
    if choice is not None:
        inputs[choice] = sha256(choice)
    method, teachers, served = recipe.method.settings, Teachers(), {}
    if recipe.method.has_teacher:
        from robust_distillation.pipeline.teacher_source import open_teachers

        source = open_teachers(experiment, teacher, method, data, device)
        inputs |= source.files
        teachers, served = source.teachers, source.served_from
    group, precision = joined(device), experiment.compute.precision
    compiled = precision != EXACT and compiles(  # to count the FLOPs takes a second
        experiment.compute, flops(work_of(experiment, recipe, settings["architecture"], teacher)), device.type
    )
    trainer = build_trainer(
        settings, recipe.training, method, experiment.threat_model, data, device, teachers, group, precision, compiled
    )
    images = data, split_of(experiment, "validation"), scheme_of(experiment), device
    if group.rank:  # the first process saves, writes and speaks for all
        logging.getLogger().setLevel(logging.WARNING)
        for number in STOPPERS:
            signal.signal(number, signal.SIG_IGN)
        train_to_files(folder, settings, trainer, *images, {})
        return
    record = folder / "record.json"
    with work_on(experiment, folder, record, recorder, inputs) as work:
        if work is None:
            return
        if role == "candidate":
            outputs = tune_to_file(folder, trainer, *images, work)
        else:
            description = {
                "role": role,
                "teacher": teacher,
                "training_images": data.digest(),
                "hashes": {str(file): known for file, known in inputs.items()},
            }
            outputs = train_to_files(folder, settings, trainer, *images, description, work)
        recorder.write(record, inputs, outputs, work, teacher_served_from=served, compiled=compiled)


COMMANDS = (import_teacher, train_teacher, fill_cache, train_student)
