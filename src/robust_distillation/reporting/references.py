"""Chooses the method that the other methods are compared to."""

from __future__ import annotations

from typing import NamedTuple

from robust_distillation.columns import NO_TEACHER, PAIRS
from robust_distillation.comparison import Comparison
from robust_distillation.config import Experiment
from robust_distillation.files import read_json_lines


class Reference(NamedTuple):
    """The method that the other methods of one teacher and student are compared to.

    Attributes:
        method: name of the method, such as `trades`.
        score: its validation accuracy under attack in percent, by which it was chosen; None if the experiment file
            names it.
    """

    method: str
    score: float | None = None


def references(experiment: Experiment) -> dict[Comparison, Reference]:
    """Returns the reference of each pair of a teacher and a student.

    It is the method that the experiment file names under `compare_to`. If it names none, the reference is the method
    without a teacher with the highest accuracy under attack on the validation split (under the protocol `official`: the
    test split), at the epoch of the checkpoint `best`, as the mean over the seeds.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it. If it names no
            reference, the training curves of all students without a teacher (metrics.jsonl) are read.

    Returns:
        The references. A pair without one has no entry: then every two methods are compared. That is so for
        `compare_to: pairs`, and if no method was trained without a teacher.

    Raises:
        CorruptFileError: if a training curve is empty or a line is not JSON.
        FileNotFoundError: if a training curve is missing.
    """
    named = experiment.file.compare_to
    if named == PAIRS:
        return {}
    if named is not None:
        return {comparison: Reference(named) for comparison in experiment.comparisons}
    scores = {}
    for student in experiment.students:
        found: dict[str, list[float]] = {}
        for run in experiment.runs:
            if (run.teacher, run.student) == (NO_TEACHER, student):
                folder = experiment.layout.student(run.teacher, run.student, run.method, run.seed)
                lines = read_json_lines(experiment.layout.curves(folder))
                best = max(line["selection_robust"] for line in lines if line.get("selection_robust") is not None)
                found.setdefault(run.method, []).append(100 * best)
        means = {method: sum(values) / len(values) for method, values in found.items()}
        if means:
            method = max(means, key=means.__getitem__)
            scores[student] = Reference(method, means[method])
    return {one: scores[one.student] for one in experiment.comparisons if one.student in scores}
