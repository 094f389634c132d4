"""What the commands share: their options, and what the names on the command line stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from robust_distillation.errors import UserError, unknown

if TYPE_CHECKING:
    from robust_distillation.config import Experiment
    from robust_distillation.config.schema import DataFiles
    from robust_distillation.pipeline.models import Model


def experiment_options(command: Callable) -> Callable:
    command = click.option("--overlay", metavar="FILE", help="Values to put in place of the experiment's.")(command)
    return click.option(
        "--experiment", "path", metavar="FILE", default="params.yaml", show_default=True, help="The experiment file."
    )(command)


def example(text: str) -> Callable:
    """Adds `Example: ...` at the end of a command's help."""

    def with_example(command: Callable) -> Callable:
        command.__doc__ = f"{command.__doc__}\n\nExample: robust-distillation {text}"
        return command

    return with_example


def check_data(experiment: Experiment) -> None:
    """Raises UserError where images are missing and may not be fetched."""
    from robust_distillation import data

    for files in _datasets(experiment):
        data.registry.module(files.name).check(files.options)


def check_weights(experiment: Experiment) -> None:
    """Raises UserError where published weights are missing, not imported yet, and may not be fetched."""
    from robust_distillation.pipeline import importing
    from robust_distillation.reference import checkpoints

    for name, teacher in experiment.teachers.items():
        done = experiment.teacher_weights(name)
        if teacher.imported and teacher.imported.source != checkpoints.ROBUSTBENCH and not done.is_file():
            importing.check_source(teacher.imported.source, teacher.imported.file, experiment.dataset.download)


def fetch_data(experiment: Experiment) -> None:
    """Places the files that are missing."""
    from robust_distillation import data

    for files in _datasets(experiment):
        data.registry.module(files.name).fetch(files.options)


def _datasets(experiment: Experiment) -> list[DataFiles]:
    return [experiment.dataset, *(transfer.dataset for transfer in experiment.file.transfer.values())]


def model_named(experiment: Experiment, text: str) -> Model:
    """A student (TEACHER/STUDENT/METHOD/seed-N) or, by its bare name, a teacher."""
    from robust_distillation.pipeline.models import models

    known = {model.name: model for model in models(experiment)}
    if text not in known:
        raise UserError(unknown(f"teacher or run of experiment {experiment.name}", text, known))
    return known[text]
