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
    """Chooses the best candidate of a method and writes choice.json (the chosen values) and candidates.json (all
    scores).

    `pipeline.run.run_step` calls this function for a job (one run) of the workflow step choose. A candidate is a
    combination of hyperparameter values that was trained for a few epochs. The candidate with the highest accuracy on
    the validation images under the attack of `training.selection` (`apgd`, `pgd10` or `pgd_trades`) is chosen, of equal
    candidates the one with the highest clean accuracy, then the first in the order of the grid. If
    `training.selection.by` names another metric, its best value decides. choice.json is `{"teacher": ..., "student":
    ..., "method": ..., "chosen": {"training": {...}, "method": {...}}}`. candidates.json has `teacher`, `student`,
    `method`, `chosen` (name of the candidate) and `candidates`: a list of dicts with `name`, its values (`training`,
    `method`), and `selection_robust`, `selection_clean` (accuracies in [0, 1]) and `epoch` of its best validation, None
    if it diverged.

    Args:
        step: the job. `step.inputs` are the training curves (metrics.jsonl) of the candidates, `step.outputs` the two
            files to write, and `step.values` the names `teacher`, `student` and `method`.

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
