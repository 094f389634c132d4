"""Chooses between the candidates (combinations of hyperparameter values) of a method."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_distillation.errors import UserError
from robust_distillation.files import read_json_lines, write_json
from robust_distillation.pipeline.tuned import choice
from robust_distillation.training import tuning

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import Choose


def run(step: Choose) -> None:
    """Writes choice.json, the chosen candidate of a method, and candidates.json, the scores of all candidates.

    A candidate is a combination of hyperparameter values that was trained for a few epochs. candidates.json has
    `teacher`, `student`, `method`, `chosen` (a name) and `candidates`: for each its `name`, its values (`training`,
    `method`), and `selection_robust`, `selection_clean` (accuracies in [0, 1]) and `epoch` of its best validation, None
    if it diverged.

    Args:
        step: the job. Its inputs are the training curves of the candidates.

    Raises:
        UserError: if a file of curves cannot be read, or if all candidates diverged.
    """
    names = step.values["teacher"], step.values["student"], step.values["method"]
    candidates = step.experiment.candidates[names[-1]]
    runs = dict(zip(candidates, step.inputs, strict=True))
    chosen, scores = tuning.choose({name: _read_lines(file) for name, file in runs.items()})
    keys = dict(zip(("teacher", "student", "method"), names, strict=True))
    compared = [{"name": name, **candidates[name].resolved(), **scores[name]} for name in candidates]
    write_json(step.outputs[1], {**keys, "chosen": chosen, "candidates": compared})
    write_json(step.outputs[0], choice(*names, candidates[chosen]))


def _read_lines(file: Path) -> list[dict[str, Any]]:
    try:
        return read_json_lines(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error}). Remove it; the next start trains it again") from error
