"""Names the numbers of the main table as TEACHER/STUDENT/METHOD/CHECKPOINT/METRIC.

An example is wide/small/rslad/best/autoattack. A teacher's own numbers have the student `-` and the method that trained
the teacher: wide/-/trades/best/clean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pandas as pd

from robust_distillation import metrics
from robust_distillation.columns import STUDENT
from robust_distillation.config import Experiment
from robust_distillation.errors import UserError, unknown
from robust_distillation.evaluation.outcomes import read_outcomes
from robust_distillation.pipeline.models import Model, models
from robust_distillation.statistics.accuracies import accuracies


class Cell(NamedTuple):
    """Name of one mean value, such as an accuracy, in the main table (results/EXPERIMENT/tables/main.csv), for commands
    and links.

    `str(cell)` joins the fields with slashes, such as `wide/small/rslad/best/autoattack`. The command
    `robust-distillation explain` takes this text. A teacher's own number is for example `wide/-/trades/best/clean`.

    Attributes:
        teacher: name of the teacher in the experiment file, such as `wide`; `none` for a student of a method without a
            teacher.
        student: name of the student in the experiment file, such as `small`; `-` for a teacher's own number.
        method: name of the distillation method, such as `rslad`. For a teacher's own number: the method that trained
            the teacher, such as `trades`, or the source of its imported weights, such as `trades_wrn_34_10`.
        checkpoint: `best` (chosen by evaluations during the training), `last` (after the last epoch), or `imported` for
            a teacher with imported weights.
        metric: `clean`, the name of an attack, such as `autoattack`, or METRIC.ATTACK, such as `nsd.autoattack`.
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
            experiment: the parsed experiment file with all defaults filled in, as `config.load("params.yaml")` returns
                it.

        Returns:
            The networks as `pipeline.models.Model` (`name`, `folder`, `keys`, `architecture`, `checkpoints`, `run`), in
            the order of the seeds in the experiment file. Empty if the experiment has no network with these names.
        """
        return models_of(experiment, *self[:3])


def models_of(experiment: Experiment, teacher: str, student: str, method: str) -> list[Model]:
    """Returns the students that one method trained, one for each seed, or a teacher alone.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load("params.yaml")` returns it.
        teacher: name of the teacher, such as `wide`; `none` for a method without a teacher.
        student: name of the student, such as `small`; `-` for the teacher alone.
        method: name of the distillation method, such as `rslad`. For a teacher: the method that trained it, such as
            `trades`, or the source of its imported weights, such as `trades_wrn_34_10`.

    Returns:
        The networks as `pipeline.models.Model` (`name`, `folder`, `keys`, `architecture`, `checkpoints`, `run`), in the
        order of the seeds in the experiment file. Empty if the experiment has no network with these names.
    """
    return [model for model in models(experiment) if _names(model) == (teacher, student, method)]


def _names(model: Model) -> tuple[str, str, str]:
    return model.keys["teacher"], model.keys["student"], model.keys["method"]


def cells(experiment: Experiment) -> Iterator[Cell]:
    """Yields the names of all numbers of the main table (results/EXPERIMENT/tables/main.csv).

    The names follow from the experiment file alone: no result is read. So there are also names of numbers that the
    table lacks because a metric is not defined, such as the agreement of a student with no teacher.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load("params.yaml")` returns it.

    Yields:
        Names such as `Cell("wide", "small", "rslad", "best", "autoattack")`: the teachers' own numbers come first.
    """
    for names, checkpoints in {_names(model): model.checkpoints for model in models(experiment)}.items():
        for checkpoint in checkpoints:
            for metric in ("clean", *experiment.evaluation.attacks, *experiment.evaluation.metrics):
                yield Cell(*names, checkpoint, metric)


def cell_named(experiment: Experiment, text: str) -> Cell:
    """Parses the name of a number of the main table (results/EXPERIMENT/tables/main.csv), and checks that the
    experiment has it.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load("params.yaml")` returns it.
        text: TEACHER/STUDENT/METHOD/CHECKPOINT/METRIC, such as `wide/small/rslad/best/autoattack`, or
            `wide/-/trades/best/clean` for a teacher's own number.

    Returns:
        The name as a `Cell`, with the fields `teacher`, `student`, `method`, `checkpoint` and `metric`.

    Raises:
        UserError: if the main table of this experiment has no number with this name.
    """
    known = {str(cell): cell for cell in cells(experiment)}
    if text not in known:
        raise UserError(
            unknown(f"cell of experiment {experiment.name} (TEACHER/STUDENT/METHOD/CHECKPOINT/METRIC)", text, known)
        )
    return known[text]


def values_of(experiment: Experiment, model: Model, further: Iterable[str]) -> pd.DataFrame:
    """Computes the accuracies and further metrics of one network from its outcomes. Reads the outcomes from their
    files.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load("params.yaml")` returns it.
            The outcomes of the network, such as results/digits/outcomes/students/wide/small/rslad/seed-0.parquet, must
            exist.
        model: the network: a student of one seed, or a teacher, as `Cell.models` or `models_of` returns it in a list.
            Used are `folder`, `keys` and `run`.
        further: names of the metrics to compute beside the accuracies, as METRIC.ATTACK, such as
            `["worst_class.autoattack"]`. If one of them compares a student with its teacher, the outcomes of the
            teacher are read, too.

    Returns:
        One row per checkpoint and metric of this network. Columns: `teacher`, `student`, `method`, `seed`,
        `checkpoint`, `metric` (`clean`, an attack, or one of `further`), `n_images` and `value` (accuracy in percent,
        another metric in its unit). A metric that is not defined for the network has no row.

    Raises:
        UserError: if a file of outcomes is missing or broken, or if it lacks a column that a metric needs.
    """
    further, layout = list(further), experiment.layout
    files, taught = [layout.outcomes(model.folder)], model.run and model.run.teacher in experiment.teachers
    if taught and any("teacher" in metrics.get(name).needs for name in further):
        files.append(layout.outcomes(layout.teacher(model.run.teacher)))
    values = accuracies(read_outcomes(files), further)
    return values[values[STUDENT].eq(model.keys["student"])].reset_index(drop=True)
