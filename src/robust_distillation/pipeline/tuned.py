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
    """Returns the settings with which a student is trained: with a tuning stage, those with the chosen hyperparameter
    values.

    Args:
        step: the job that trains the student, for example `TrainStudent.of(experiment, run)`. If the experiment has a
            tuning stage, the file choice.json that the stage wrote is read.

    Returns:
        A pair. First, all settings that the training depends on, as JSON values: `protocol`, `dataset`, `threat_model`,
        `training`, `compute`, `architecture`, `method` and `seed`. Second, the recipe: the method with its settings
        (`method`) and the training settings (`training`). Without a tuning stage both members of the pair are those of
        the experiment file.

    Raises:
        UserError: if choice.json cannot be read, or if it holds no candidate of the method.
    """
    run, recipe = step.training_run, step.recipe
    if step.choice:
        candidate = read_choice(step.choice, step.experiment, run.teacher, run.student, run.method)
        recipe = apply_candidate(recipe, candidate)
    return step.experiment.student_settings(run, recipe), recipe


def choice(teacher: str, student: str, method: str, candidate: Candidate) -> dict[str, Any]:
    """Returns the content of choice.json, the file with the candidate that the tuning stage chose. Writes nothing.

    A candidate is a combination of hyperparameter values. The content does not depend on the other candidates. So the
    students are not trained again if another candidate is added and the choice stays the same.

    Args:
        teacher: name of the teacher, for example `wide`; `none` for a method without one.
        student: name of the student, for example `small`.
        method: name of the distillation or training method in the experiment file, for example `rslad`.
        candidate: the chosen values: `training` and `method`, two dicts of setting to value.

    Returns:
        A dict with `teacher`, `student`, `method` and `chosen`. The last is `{"training": {...}, "method": {...}}`,
        each setting to value, for example `{"training": {"learning_rate": 0.1}, "method": {}}`.
    """
    return {"teacher": teacher, "student": student, "method": method, "chosen": candidate.resolved()}


def read_choice(file: Path, experiment: Experiment, teacher: str, student: str, method: str) -> Candidate:
    """Reads the candidate (a combination of hyperparameter values) that the tuning stage chose, and checks that it
    still exists.

    Args:
        file: path of choice.json, for example results/digits/tuning/wide/small/rslad/choice.json.
        experiment: the parsed experiment file, as `config.load` returns it. Its grid of candidates is used.
        teacher: name of the teacher, for example `wide`; `none` for a method without one.
        student: name of the student, for example `small`.
        method: name of the distillation or training method in the experiment file, for example `rslad`.

    Returns:
        The chosen candidate: `training` and `method`, two dicts of setting to value.

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
