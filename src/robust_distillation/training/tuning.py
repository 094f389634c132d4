"""The choice between the candidates of the tuning stage, by the rule that also chooses `best` within a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robust_distillation.errors import UserError

SCORES = ("selection_robust", "selection_clean")  # the first decides, the second between equals


def rank(validation: Mapping[str, Any]) -> tuple[float, ...]:
    """Returns the scores of one validation, to be compared: robust accuracy first, then clean."""
    return tuple(validation[score] for score in SCORES)


def best_validation(lines: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Returns the validation of the highest robust, then clean accuracy, the first of equals; None for a run that
    diverged.

    Args:
        lines: the lines of the run's metrics.jsonl.
    """
    if any(line.get("diverged") for line in lines):
        return None
    return max((line for line in lines if SCORES[0] in line), key=rank)


def choose(runs: Mapping[str, list[dict[str, Any]]]) -> tuple[str, dict[str, dict[str, Any]]]:
    """Chooses the candidate with the best validation, the first of equals.

    Args:
        runs: the lines of metrics.jsonl by the candidate's name, in the grid's order.

    Returns:
        The name of the chosen candidate, and the scores of each; the scores of a run that diverged are None.

    Raises:
        UserError: all candidates diverged.
    """
    validations = {name: best_validation(lines) for name, lines in runs.items()}
    left = [name for name, validation in validations.items() if validation is not None]
    if not left:
        raise UserError(f"all candidates diverged ({', '.join(validations)}): give tuning.grid lower learning rates")
    keys = (*SCORES, "epoch")
    scores = {name: {key: best and best[key] for key in keys} for name, best in validations.items()}
    return max(left, key=lambda name: rank(validations[name])), scores
