"""Names of the numbers in the main table: TEACHER/STUDENT/METHOD/CHECKPOINT/METRIC, as in
wide/small/rslad/best/autoattack.

A teacher's own numbers have the student `-` and the method that trained the teacher: wide/-/trades/best/clean.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from robust_distillation.config import Experiment
from robust_distillation.errors import UserError, unknown
from robust_distillation.pipeline.models import Model, models


class Cell(NamedTuple):
    """A number of the main table: the mean over the seeds.

    Attributes:
        teacher: its name; `none` for a method without a teacher.
        student: its name; `-` for a teacher's own number.
        method: its name; for a teacher the method that trained it.
        checkpoint: `best`, `last` or `imported`.
        metric: `clean` or an attack.
    """

    teacher: str
    student: str
    method: str
    checkpoint: str
    metric: str

    def __str__(self) -> str:
        return "/".join(self)

    def models(self, experiment: Experiment) -> list[Model]:
        """Returns the models whose mean this is: one student per seed, or the teacher."""
        return models_of(experiment, *self[:3])


def models_of(experiment: Experiment, teacher: str, student: str, method: str) -> list[Model]:
    """Returns the students of all seeds, or the teacher alone.

    Args:
        experiment: its models.
        teacher: its name, or `none`.
        student: its name, or `-` for the teacher alone.
        method: its name.
    """
    return [model for model in models(experiment) if _names(model) == (teacher, student, method)]


def _names(model: Model) -> tuple[str, str, str]:
    return model.keys["teacher"], model.keys["student"], model.keys["method"]


def cells(experiment: Experiment) -> Iterator[Cell]:
    """Yields the names of all numbers of the main table."""
    for names, checkpoints in {_names(model): model.checkpoints for model in models(experiment)}.items():
        for checkpoint in checkpoints:
            for metric in ("clean", *experiment.evaluation.attacks):
                yield Cell(*names, checkpoint, metric)


def cell_named(experiment: Experiment, text: str) -> Cell:
    """Returns the cell that `text` names.

    Raises:
        UserError: the main table has no such cell.
    """
    known = {str(cell): cell for cell in cells(experiment)}
    if text not in known:
        raise UserError(
            unknown(f"cell of experiment {experiment.name} (TEACHER/STUDENT/METHOD/CHECKPOINT/METRIC)", text, known)
        )
    return known[text]
