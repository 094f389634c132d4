"""The tuning stage's choice between short runs, by the rule that also chooses `best` within a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robust_distillation.config import Experiment
from robust_distillation.config.tuning import Candidate
from robust_distillation.errors import UserError
from robust_distillation.files import read_json

SCORES = ("selection_robust", "selection_clean")  # the first decides, the second between equals


def rank(look: Mapping[str, Any]) -> tuple[float, ...]:
    return tuple(look[score] for score in SCORES)


def best_look(lines: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Of a run's metrics the line with the highest accuracy on the validation split, under APGD-CE and then clean; the
    first of equals. None of a run that diverged."""
    if any(line.get("diverged") for line in lines):
        return None
    return max((line for line in lines if SCORES[0] in line), key=rank)


def choose(runs: Mapping[str, list[dict[str, Any]]]) -> tuple[str, dict[str, dict[str, Any]]]:
    """The candidate with the best look, the first of equals, and each one's scores (None of one that diverged).

    runs: a candidate's name to its metrics, in the grid's order. Raises UserError where all diverged.
    """
    looks = {name: best_look(lines) for name, lines in runs.items()}
    left = [name for name, look in looks.items() if look is not None]
    if not left:
        raise UserError(f"all candidates diverged ({', '.join(looks)}): give tuning.grid lower learning rates")
    scores = {name: {key: look and look[key] for key in (*SCORES, "epoch")} for name, look in looks.items()}
    return max(left, key=lambda name: rank(looks[name])), scores


def choice(teacher: str, student: str, method: str, candidate: Candidate) -> dict[str, Any]:
    """The whole of choice.json: nothing in it changes with a candidate that is not chosen, so that no student trains
    again."""
    return {"teacher": teacher, "student": student, "method": method, "chosen": candidate.resolved()}


def read_choice(file: Path, experiment: Experiment, teacher: str, student: str, method: str) -> Candidate:
    """What the tuning stage chose. Raises UserError for a file that holds no candidate of this method."""
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
