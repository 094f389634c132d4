"""The settings with which a student is trained after the choice of the tuning stage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_distillation.config.tuning import apply_candidate
from robust_distillation.errors import UserError
from robust_distillation.files import read_json

if TYPE_CHECKING:
    from robust_distillation.config import Experiment, Recipe
    from robust_distillation.config.tuning import Candidate
    from robust_distillation.pipeline.steps import TrainStudent


def tuned(step: TrainStudent) -> tuple[dict[str, Any], Recipe]:
    """Returns the settings with which a student is trained: with a tuning stage, those with the chosen values.

    Args:
        step: the training of the student. If the experiment has a tuning stage, its choice.json is read.

    Returns:
        All settings that the training depends on, as JSON values (see `Experiment.student_settings`), and the recipe:
        the method with its settings and the training settings. Without a tuning stage both are those of the experiment
        file.

    Raises:
        UserError: if choice.json cannot be read, or if it holds no candidate of the method.
    """
    run, recipe = step.training_run, step.recipe
    if step.choice:
        candidate = read_choice(step.choice, step.experiment, run.teacher, run.student, run.method)
        recipe = apply_candidate(recipe, candidate)
    return step.experiment.student_settings(run, recipe), recipe


def choice(teacher: str, student: str, method: str, candidate: Candidate) -> dict[str, Any]:
    """Returns the content of choice.json, the file with the candidate that the tuning stage chose.

    A candidate is a combination of hyperparameter values. The content does not depend on the other candidates. So the
    students are not trained again if another candidate is added and the choice stays the same.

    Args:
        teacher: name of the teacher; `none` for a method without one.
        student: name of the student.
        method: name of the method.
        candidate: the chosen values.

    Returns:
        A dict with `teacher`, `student`, `method` and `chosen`. The last is `{"training": {...}, "method": {...}}`,
        each setting to value, for example `{"training": {"learning_rate": 0.1}, "method": {}}`.
    """
    return {"teacher": teacher, "student": student, "method": method, "chosen": candidate.resolved()}


def read_choice(file: Path, experiment: Experiment, teacher: str, student: str, method: str) -> Candidate:
    """Reads the candidate that the tuning stage chose.

    Args:
        file: path of choice.json.
        experiment: the parsed experiment file, which lists the candidates.
        teacher: name of the teacher; `none` for a method without one.
        student: name of the student.
        method: name of the method.

    Returns:
        The chosen candidate, one combination of hyperparameter values.

    Raises:
        UserError: if the file cannot be read, is of another teacher, student or method, or names no candidate of the
            method.
    """
    try:
        found = read_json(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error}). Remove it; the next start chooses again") from error
    known = experiment.candidates[method]
    for candidate in known.values():
        if found == choice(teacher, student, method, candidate):
            return candidate
    raise UserError(
        f"{file}: is not the choice of one of the candidates of {teacher}/{student}/{method} ({'; '.join(known)}). "
        "Remove it; the next start chooses again"
    )
