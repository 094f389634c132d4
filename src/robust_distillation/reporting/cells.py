"""Names the numbers of the main table as TEACHER/STUDENT/METHOD/CHECKPOINT/METRIC.

An example is wide/small/rslad/best/autoattack. A teacher's own numbers have the student `-` and the method that trained
the teacher: wide/-/trades/best/clean.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from robust_distillation.config import Experiment
from robust_distillation.errors import UserError, unknown
from robust_distillation.pipeline.models import Model, models


class Cell(NamedTuple):
    """Name of a number of the main table (tables/main.csv), a mean accuracy over the seeds.

    `str(cell)` is TEACHER/STUDENT/METHOD/CHECKPOINT/METRIC, for example `wide/small/rslad/best/autoattack`.

    Attributes:
        teacher: name of the teacher; `none` for a method without a teacher.
        student: name of the student; `-` for a teacher's own accuracy.
        method: name of the method. For a teacher's own accuracy: the method that trained it, or the source of its
            imported weights.
        checkpoint: `best`, `last` or `imported`.
        metric: `clean` or the name of an attack.
    """

    teacher: str
    student: str
    method: str
    checkpoint: str
    metric: str

    def __str__(self) -> str:
        return "/".join(self)

    def models(self, experiment: Experiment) -> list[Model]:
        """Returns the networks over which the mean is taken: the students of all seeds, or the teacher alone.

        Args:
            experiment: the parsed experiment file, with every default filled in.

        Returns:
            The networks; empty if the experiment has none of these names.
        """
        return models_of(experiment, *self[:3])


def models_of(experiment: Experiment, teacher: str, student: str, method: str) -> list[Model]:
    """Returns the students of one method, one for each seed, or a teacher alone.

    Args:
        experiment: the parsed experiment file, with every default filled in.
        teacher: name of the teacher; `none` for a method without a teacher.
        student: name of the student; `-` for the teacher alone.
        method: name of the method. For a teacher: the method that trained it, or the source of its imported weights.

    Returns:
        The trained networks; empty if the experiment has none of these names.
    """
    return [model for model in models(experiment) if _names(model) == (teacher, student, method)]


def _names(model: Model) -> tuple[str, str, str]:
    return model.keys["teacher"], model.keys["student"], model.keys["method"]


def cells(experiment: Experiment) -> Iterator[Cell]:
    """Yields the names of all numbers of the main table (tables/main.csv), the teachers' own first.

    Args:
        experiment: the parsed experiment file, with every default filled in.
    """
    for names, checkpoints in {_names(model): model.checkpoints for model in models(experiment)}.items():
        for checkpoint in checkpoints:
            for metric in ("clean", *experiment.evaluation.attacks):
                yield Cell(*names, checkpoint, metric)


def cell_named(experiment: Experiment, text: str) -> Cell:
    """Returns the number of the main table (tables/main.csv) that a text names.

    Args:
        experiment: the parsed experiment file, with every default filled in.
        text: TEACHER/STUDENT/METHOD/CHECKPOINT/METRIC, for example `wide/small/rslad/best/autoattack`.

    Raises:
        UserError: if the main table has no such number.
    """
    known = {str(cell): cell for cell in cells(experiment)}
    if text not in known:
        raise UserError(
            unknown(f"cell of experiment {experiment.name} (TEACHER/STUDENT/METHOD/CHECKPOINT/METRIC)", text, known)
        )
    return known[text]
