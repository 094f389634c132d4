"""Provides the options that commands share, and looks up the names in their arguments."""

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
    """Adds the options --experiment (parameter `path`) and --overlay to a command."""
    command = click.option("--overlay", metavar="FILE", help="Values to put in place of the experiment's.")(command)
    return click.option(
        "--experiment", "path", metavar="FILE", default="params.yaml", show_default=True, help="The experiment file."
    )(command)


def example(text: str) -> Callable:
    """Makes a decorator that adds `Example: robust-distillation TEXT` to the end of a command's help."""

    def with_example(command: Callable) -> Callable:
        command.__doc__ = f"{command.__doc__}\n\nExample: robust-distillation {text}"
        return command

    return with_example


def check_data(experiment: Experiment) -> None:
    """Checks that the images of all datasets of an experiment exist or may be downloaded.

    Raises:
        UserError: if images are missing and may not be downloaded.
    """
    from robust_distillation import data

    for files in _datasets(experiment):
        data.registry.module(files.name).check(files.options)


def check_weights(experiment: Experiment) -> None:
    """Checks that the published weights of an experiment's teachers exist, are imported already or may be downloaded.

    Raises:
        UserError: if weights are missing and may not be downloaded.
    """
    from robust_distillation.pipeline import importing
    from robust_distillation.reference import checkpoints

    for name, teacher in experiment.teachers.items():
        checkpoint = experiment.teacher_weights(name)
        if teacher.imported and teacher.imported.source != checkpoints.ROBUSTBENCH and not checkpoint.is_file():
            importing.check_source(teacher.imported.source, teacher.imported.file, experiment.dataset.download)


def fetch_data(experiment: Experiment) -> None:
    """Downloads the missing files of all datasets of an experiment."""
    from robust_distillation import data

    for files in _datasets(experiment):
        data.registry.module(files.name).fetch(files.options)


def _datasets(experiment: Experiment) -> list[DataFiles]:
    return [experiment.dataset, *(transfer.dataset for transfer in experiment.file.transfer.values())]


def model_named(experiment: Experiment, text: str) -> Model:
    """Looks up a student (TEACHER/STUDENT/METHOD/seed-N) or a teacher (its name).

    Raises:
        UserError: if the experiment has no such model.
    """
    from robust_distillation.pipeline.models import models

    by_name = {model.name: model for model in models(experiment)}
    if text not in by_name:
        raise UserError(unknown(f"teacher or run of experiment {experiment.name}", text, by_name))
    return by_name[text]
