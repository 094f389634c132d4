"""The tuning stage's choice between short runs, by the rule that also chooses `best` within a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robust_distillation.errors import UserError

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
