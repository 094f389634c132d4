"""What the commands share: their options, and what the names on the command line stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robust_distillation.errors import UserError, unknown
from robust_distillation.layout import Layout

if TYPE_CHECKING:
    from robust_distillation.config import Experiment, Run
    from robust_distillation.config.schema import DataFiles, Transfer
    from robust_distillation.pipeline.links import Model
    from robust_distillation.pipeline.record import Recorder
    from robust_distillation.resume import Work


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
        done = Layout(experiment.name).teacher(name) / "imported.safetensors"
        if teacher.imported and teacher.imported.source != checkpoints.ROBUSTBENCH and not done.is_file():
            importing.check_source(teacher.imported.source, teacher.imported.file, experiment.dataset.download)


def fetch_data(experiment: Experiment) -> None:
    """Places the files that are missing."""
    from robust_distillation import data

    for files in _datasets(experiment):
        data.registry.module(files.name).fetch(files.options)


def _datasets(experiment: Experiment) -> list[DataFiles]:
    return [experiment.dataset, *(transfer.dataset for transfer in experiment.file.transfer.values())]


def run_named(experiment: Experiment, text: str) -> Run:
    from robust_distillation.pipeline.links import run_name

    known = {run_name(run): run for run in experiment.runs}
    if text not in known:
        raise UserError(unknown(f"run of experiment {experiment.name}", text, known))
    return known[text]


def teacher_named(experiment: Experiment, name: str) -> Any:
    if name not in experiment.teachers:
        raise UserError(unknown("teacher", name, experiment.teachers))
    return experiment.teachers[name]


def target_named(experiment: Experiment, name: str) -> Transfer:
    """The transfer to the task `name`."""
    if name not in experiment.file.transfer:
        raise UserError(unknown(f"transfer of experiment {experiment.name}", name, experiment.file.transfer))
    return experiment.file.transfer[name]


def check_structure(experiment: Experiment) -> None:
    """Raises UserError where the experiment does not ask for the analysis."""
    if experiment.file.structure is None:
        raise UserError(f"experiment {experiment.name}: does not ask for this: add `structure: {{}}` to its file")


@contextmanager
def work_on(
    experiment: Experiment, artefact: Path, record: Path, recorder: Recorder, inputs: dict[Path, str]
) -> Iterator[Work | None]:
    """Around making `artefact`, a file or a folder, and its `record`: one process at a time, which goes on where a
    killed one was. None where another process made the same and nobody noticed."""
    from robust_distillation.files import read_json, sha256
    from robust_distillation.resume import Work

    configuration = recorder.configuration(inputs)
    with Work(Layout(experiment.name).state(artefact), configuration, experiment.compute.save_every) as work:
        if work.restore():
            yield None
        else:
            yield work
            work.keep({**read_json(record)["outputs"], str(record): sha256(record)})


def model_named(experiment: Experiment, text: str) -> Model:
    """A student (TEACHER/STUDENT/METHOD/seed-N) or, by its bare name, a teacher."""
    from robust_distillation.pipeline.links import models

    known = {model.name: model for model in models(experiment)}
    if text not in known:
        raise UserError(unknown(f"teacher or run of experiment {experiment.name}", text, known))
    return known[text]
