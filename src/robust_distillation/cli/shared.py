"""Provides the options that commands share, and finds the data, weights and networks that their arguments name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from robust_distillation.errors import UserError, unknown

if TYPE_CHECKING:
    from robust_distillation.config import Experiment
    from robust_distillation.config.schema import DataFiles
    from robust_distillation.pipeline.models import Model


def experiment_options(command: Callable) -> Callable:
    """Adds the options --experiment FILE and --overlay FILE to a command. Used as a decorator.

    The command's function gets two more arguments. `path` is the path of the experiment file (YAML), `params.yaml` if
    the option is left out. `overlay` is the path of a second YAML file whose values replace those of the first, None if
    the option is left out.

    Args:
        command: the function of the command, before `click.command` is applied to it.

    Returns:
        The same function with the options attached.
    """
    command = click.option("--overlay", metavar="FILE", help="Values to put in place of the experiment's.")(command)
    return click.option(
        "--experiment", "path", metavar="FILE", default="params.yaml", show_default=True, help="The experiment file."
    )(command)


def example(text: str) -> Callable:
    """Makes a decorator that adds a line with an example to the end of a command's help.

    Args:
        text: arguments of the example, such as `audit --recompute 5`. The line reads
            `Example: robust-distillation audit --recompute 5`.

    Returns:
        Decorator that extends the docstring of the command's function in place and returns the function. Apply it
        before `click.command`.
    """

    def with_example(command: Callable) -> Callable:
        command.__doc__ = f"{inspect.getdoc(command)}\n\nExample: robust-distillation {text}"
        return command

    return with_example


def check_data(experiment: Experiment) -> None:
    """Checks that the images of all datasets of an experiment are on disk or may be downloaded. Reads no image.

    The datasets are the one under `dataset` in the experiment file and those under `transfer`. Extra images cannot be
    downloaded.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load("params.yaml")` returns it.

    Raises:
        UserError: if images are missing and may not be downloaded, or if an option of the dataset is wrong.
    """
    from robust_distillation import data

    for files in _datasets(experiment):
        data.registry.module(files.name).check(files.options)
    if experiment.extra and experiment.extra.path and not Path(experiment.extra.path).exists():
        raise UserError(f"dataset.extra: {experiment.extra.path} is missing. Put the extra images there")


def check_weights(experiment: Experiment) -> None:
    """Checks that the published weights of all imported teachers are on disk, imported already, or may be downloaded.

    Teachers that the experiment trains, and teachers from RobustBench, are not checked. No file is read.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load("params.yaml")` returns it.

    Raises:
        UserError: if weights are missing and may not be downloaded.
    """
    from robust_distillation.pipeline import importing
    from robust_distillation.reference import checkpoints

    for name, teacher in experiment.teachers.items():
        checkpoint = experiment.teacher_weights(name)
        if teacher.imported and teacher.imported.source != checkpoints.ROBUSTBENCH and not checkpoint.is_file():
            try:
                importing.check_source(teacher.imported.source, teacher.imported.file, experiment.dataset.download)
            except UserError as error:
                known = checkpoints.SOURCES.get(teacher.imported.source)
                if known is None or known.url is not None:
                    raise
                raise UserError(f"{error}. Or name an overlay of experiments/overlays/ that needs no file") from error


def fetch_data(experiment: Experiment) -> None:
    """Downloads or unpacks the missing files of all datasets of an experiment, into the datasets' folders.

    The datasets are the one under `dataset` in the experiment file and those under `transfer`.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load("params.yaml")` returns it.

    Raises:
        UserError: if a file is missing and may not be downloaded, if a download fails, or if a file is broken or has
            the wrong checksum.
    """
    from robust_distillation import data

    for files in _datasets(experiment):
        data.registry.module(files.name).fetch(files.options)


def _datasets(experiment: Experiment) -> list[DataFiles]:
    return [experiment.dataset, *(transfer.dataset for transfer in experiment.file.transfer.values())]


def model_named(experiment: Experiment, text: str) -> Model:
    """Finds a trained network of an experiment by its name. Its files need not exist.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load("params.yaml")` returns it.
        text: TEACHER/STUDENT/METHOD/seed-N for a student, such as `wide/small/rslad/seed-0`, or the name of a teacher,
            such as `wide`.

    Returns:
        The network, a `pipeline.models.Model` with the fields `name`, `folder`, `keys` (`teacher`, `student`, `method`,
            `seed` as in its rows of the tables),
        `architecture` and `checkpoints` (name such as `best` to the path of the .safetensors file).

    Raises:
        UserError: if the experiment has no such network. The message names similar ones.
    """
    from robust_distillation.pipeline.models import models

    by_name = {model.name: model for model in models(experiment)}
    if text not in by_name:
        raise UserError(unknown(f"teacher or run of experiment {experiment.name}", text, by_name))
    return by_name[text]
