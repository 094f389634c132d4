"""The choice between the candidates of the tuning stage, by the rule that also chooses `best` within a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robust_distillation.errors import UserError

SCORES = ("selection_robust", "selection_clean")  # the first decides, the second between equals


def rank(validation: Mapping[str, Any]) -> tuple[float, ...]:
    """Returns (score, clean accuracy) of one validation. Of two returned tuples the larger belongs to the better
    validation.

    The score is `selection_robust`, the accuracy under the attack of `training.selection` (`apgd`, `pgd10` or
    `pgd_trades`), or `selection_score` if `training.selection.by` names another metric.

    Args:
        validation: one line of metrics.jsonl with the keys `selection_robust` and `selection_clean` (accuracies in [0,
            1]), and `selection_score` if there is one.
    """
    robust, clean = (validation[score] for score in SCORES)
    return validation.get("selection_score", robust), clean


def best_validation(lines: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Returns the line of the best validation: that with the highest score, of equals the highest clean accuracy, then
    the first.

    The score is `selection_robust`, the accuracy under the attack of `training.selection` (`apgd`, `pgd10` or
    `pgd_trades`), or `selection_score` if the lines have it.

    Args:
        lines: the lines of the metrics.jsonl of one training, as dicts. Only those of epochs with a validation have
            `selection_robust` and `selection_clean`; there must be at least one, unless the training diverged.

    Returns:
        The line, one of `lines`. None if the training diverged: a line has `"diverged": true`.
    """
    if any(line.get("diverged") for line in lines):
        return None
    return max((line for line in lines if SCORES[0] in line), key=rank)


def choose(runs: Mapping[str, list[dict[str, Any]]]) -> tuple[str, dict[str, dict[str, Any]]]:
    """Chooses the candidate, a combination of hyperparameter values, whose best validation has the highest score.

    The score is `selection_robust`, the accuracy under the attack of `training.selection` (`apgd`, `pgd10` or
    `pgd_trades`), or `selection_score` if the lines have it. Of equal candidates the one with the higher clean accuracy
    is chosen, then the first in the order of `runs`.

    Args:
        runs: for each candidate, by its name (for example `learning_rate=0.1,beta=3.0`), the lines of its
            metrics.jsonl, as dicts.

    Returns:
        The name of the chosen candidate, and for each candidate a dict of its best validation with the keys
        `selection_robust`, `selection_clean` (accuracies in [0, 1]) and `epoch`. All three are None for a candidate
        that diverged.

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
