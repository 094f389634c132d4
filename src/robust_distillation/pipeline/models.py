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
    """A trained network that attacks and analyses evaluate.

    Attributes:
        name: the name of a teacher, or TEACHER/STUDENT/METHOD/seed-N.
        folder: folder of its training or import.
        keys: teacher, student, method and seed, as in its outcomes.
        architecture: name and arguments of its architecture.
        checkpoints: file of each checkpoint that is evaluated, the headline's first.
        run: the run that trained it; None for a teacher.
    """

    name: str
    folder: Path
    keys: dict[str, Any]
    architecture: dict[str, Any]
    checkpoints: dict[str, Path]
    run: Run | None

    @property
    def headline(self) -> tuple[str, Path]:
        """Name and file of the checkpoint that headlines and analyses are about."""
        return next(iter(self.checkpoints.items()))


@cache
def models(experiment: Experiment) -> tuple[Model, ...]:
    """Returns all teachers, then all students."""
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
    """Returns the model in a folder."""
    return next(model for model in models(experiment) if model.folder == folder)


def run_name(run: Run) -> str:
    """Returns TEACHER/STUDENT/METHOD/seed-N."""
    return f"{run.teacher}/{run.student}/{run.method}/seed-{run.seed}"


def student_folder(experiment: Experiment, run: Run) -> Path:
    """Returns the folder of a student's training."""
    return experiment.layout.student(run.teacher, run.student, run.method, run.seed)
