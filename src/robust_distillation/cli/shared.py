"""What the commands share: their options, and what the names on the command line stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robust_distillation.errors import UserError
from robust_distillation.layout import Layout

if TYPE_CHECKING:
    from robust_distillation.config import Experiment, Run
    from robust_distillation.config.schema import DataFiles, Transfer


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
    from robust_distillation.teachers import importing, sources

    for name, teacher in experiment.teachers.items():
        done = Layout(experiment.name).teacher(name) / "imported.safetensors"
        if teacher.imported and teacher.imported.source != sources.ROBUSTBENCH and not done.is_file():
            importing.check_source(teacher.imported.source, teacher.imported.file, experiment.dataset.download)


def fetch_data(experiment: Experiment) -> None:
    """Places the files that are missing."""
    from robust_distillation import data

    for files in _datasets(experiment):
        data.registry.module(files.name).fetch(files.options)


def _datasets(experiment: Experiment) -> list[DataFiles]:
    return [experiment.dataset, *(transfer.dataset for transfer in experiment.file.transfer.values())]


def run_named(experiment: Experiment, text: str, also: Iterable[str] = ()) -> Run:
    """The run that `text` names; `also` are names that would have been right here too."""
    known = {f"{r.teacher}/{r.student}/{r.method}/seed-{r.seed}": r for r in experiment.runs}
    if text not in known:
        from robust_distillation.errors import unknown

        what = "teacher or run" if also else "run"
        raise UserError(unknown(f"{what} of experiment {experiment.name}", text, [*also, *known]))
    return known[text]


def teacher_named(experiment: Experiment, name: str) -> Any:
    if name not in experiment.teachers:
        from robust_distillation.errors import unknown

        raise UserError(unknown("teacher", name, experiment.teachers))
    return experiment.teachers[name]


def target_named(experiment: Experiment, name: str) -> Transfer:
    """The transfer to the task `name`."""
    if name not in experiment.file.transfer:
        from robust_distillation.errors import unknown

        raise UserError(unknown(f"transfer of experiment {experiment.name}", name, experiment.file.transfer))
    return experiment.file.transfer[name]


def check_structure(experiment: Experiment) -> None:
    """Raises UserError where the experiment does not ask for the analysis."""
    if experiment.file.structure is None:
        raise UserError(f"experiment {experiment.name}: does not ask for this: add `structure: {{}}` to its file")


@dataclass(frozen=True)
class Model:
    """A student or a teacher that is looked at: its folder, the keys of its outcomes, its architecture, the checkpoints
    that count (name to file), the first of which is its headline."""

    folder: Path
    keys: dict[str, Any]
    architecture: dict[str, Any]
    checkpoints: dict[str, Path]

    @property
    def headline(self) -> tuple[str, Path]:
        return next(iter(self.checkpoints.items()))


def model_named(experiment: Experiment, text: str) -> Model:
    """A student (TEACHER/STUDENT/METHOD/seed-N) or, by its bare name, a teacher."""
    from robust_distillation.evaluation.outcomes import ITSELF

    layout = Layout(experiment.name)
    if text in experiment.teachers:
        teacher = experiment.teachers[text]
        folder, architecture, names = layout.teacher(text), teacher.architecture, [teacher.checkpoint]
        keys = {"teacher": text, "student": ITSELF, "method": teacher.origin, "seed": teacher.seed}
    else:
        run = run_named(experiment, text, also=experiment.teachers)
        folder = layout.student(run.teacher, run.student, run.method, run.seed)
        architecture, names = experiment.students[run.student], experiment.evaluation.checkpoints
        keys = {"teacher": run.teacher, "student": run.student, "method": run.method, "seed": run.seed}
    return Model(folder, keys, architecture, {name: folder / f"{name}.safetensors" for name in names})


def all_folders(experiment: Experiment, layout: Layout) -> list[Path]:
    """The folders of all teachers and students."""
    teachers = [layout.teacher(name) for name in experiment.teachers]
    return teachers + [layout.student(run.teacher, run.student, run.method, run.seed) for run in experiment.runs]
