"""Lists the trained networks of an experiment: its teachers and its students."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_distillation.columns import TEACHER_ROW

if TYPE_CHECKING:
    from robust_distillation.config import Experiment, Run


@dataclass(frozen=True)
class Model:
    """A trained network that attacks and analyses evaluate: a teacher or a student. `pipeline.models.models` lists
    them.

    Attributes:
        name: the name of a teacher, for example `wide`, or TEACHER/STUDENT/METHOD/seed-N, for example
            `wide/small/rslad/seed-0`.
        folder: folder of its training or import, for example results/digits/teachers/wide.
        keys: `teacher`, `student`, `method` and `seed`, as in its rows of the outcomes (the table of correct or not for
            each test image and attack). A teacher has the student `-`, and as method the name of the method that
            trained it, or the source of its imported weights.
        architecture: name and arguments of the architecture, for example `{"name": "convnet", "width": 8}`.
        checkpoints: name of each checkpoint that is evaluated (`best`, `last` or `imported`) to its file. A teacher has
            only the one that students learn from. The first is the one of `headline`.
        run: the training of a student, with the fields `teacher`, `student`, `method` and `seed`. None for a teacher.
    """

    name: str
    folder: Path
    keys: dict[str, Any]
    architecture: dict[str, Any]
    checkpoints: dict[str, Path]
    run: Run | None

    @property
    def headline(self) -> tuple[str, Path]:
        """Name and file of the first of `checkpoints`, which analyses evaluate and summaries of the results show."""
        return next(iter(self.checkpoints.items()))


@cache
def models(experiment: Experiment) -> tuple[Model, ...]:
    """Returns all trained networks of an experiment: the teachers, then one student for each of its trainings.

    The order is that of the experiment file. The networks need not be trained yet.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.

    Returns:
        A `Model` for each network: `name`, `folder`, `keys` (teacher, student, method and seed), `architecture`,
        `checkpoints` (name to path) and `run`.
    """
    layout, found = experiment.layout, []
    for name, teacher in experiment.teachers.items():
        keys = {"teacher": name, "student": TEACHER_ROW, "method": teacher.origin, "seed": teacher.seed}
        weights = {teacher.checkpoint: experiment.teacher_weights(name)}
        found.append(Model(name, layout.teacher(name), keys, teacher.architecture, weights, None))
    for run in experiment.runs:
        folder = student_folder(experiment, run)
        weights = {name: layout.checkpoint(folder, name) for name in experiment.evaluation.checkpoints}
        found.append(Model(run_name(run), folder, asdict(run), experiment.students[run.student], weights, run))
    return tuple(found)


@cache
def model_in(experiment: Experiment, folder: Path) -> Model:
    """Returns the trained network whose files lie in a folder.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        folder: folder of a training or import below results/EXPERIMENT, for example results/digits/teachers/wide.

    Returns:
        The network as `pipeline.models.models` lists it: a `Model` with `name`, `architecture` and `checkpoints` (name
        to path).

    Raises:
        StopIteration: if no model of the experiment has this folder.
    """
    return next(model for model in models(experiment) if model.folder == folder)


def run_name(run: Run) -> str:
    """Returns the name of a training as TEACHER/STUDENT/METHOD/seed-N, for example `wide/small/rslad/seed-0`.

    Args:
        run: the training of one student, for example `Run("wide", "small", "rslad", 0)`: teacher (`none` for a method
            without one), student, method and seed. `experiment.runs` lists them.
    """
    return f"{run.teacher}/{run.student}/{run.method}/seed-{run.seed}"


def student_folder(experiment: Experiment, run: Run) -> Path:
    """Returns the folder of a student's training, results/EXPERIMENT/students/TEACHER/STUDENT/METHOD/seed-N.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        run: the training of one student, for example `Run("wide", "small", "rslad", 0)`: teacher (`none` for a method
            without one), student, method and seed. `experiment.runs` lists them.
    """
    return experiment.layout.student(run.teacher, run.student, run.method, run.seed)
