"""Makes the candidates of hyperparameter tuning: the points of each method's grid.

A candidate is one combination of hyperparameter values. Every method has the same number of candidates, so that none is
tuned longer than another.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from robust_distillation.config.parsing import deep_merge, parse, path_text
from robust_distillation.config.schema import ExperimentFile
from robust_distillation.errors import short_repr, unknown
from robust_distillation.settings import Training

if TYPE_CHECKING:
    from robust_distillation.config.experiment import Recipe

MOST = 100  # candidates of a method, at most
WORD = re.compile(r"[A-Za-z0-9.+-][A-Za-z0-9._+-]{0,31}")  # text of a value; it is part of file paths
_SHORT = "a short run has its own, under tuning.training"
_SHARED = "all methods share it"
NOT_TUNED = {
    "epochs": _SHORT,
    "milestones": _SHORT,
    "selection": "it is what the candidates are compared by",
    **dict.fromkeys(
        ("augmentation", "averaging", "optimizer", "schedule", "weight_perturbation"),
        "its name and options are no single value",
    ),
    "inner_attack": _SHARED,  # the adversary, and the steps that a method may spend on it
}
TUNED = [key for key in Training.model_fields if key not in NOT_TUNED]

Value = bool | int | float | str
ParseTraining = Callable[[dict[str, Any]], tuple[Training | None, list[str]]]  # returns the settings, and the mistakes


@dataclass(frozen=True)
class Candidate:
    """One combination of hyperparameter values that the tuning stage tries.

    `tuning_candidates` makes the candidates from the grids under `tuning` in the experiment file.

    Attributes:
        training: name of a training setting to its value, such as {"learning_rate": 0.1}.
        method: name of a setting of the method to its value, such as {"beta": 3.0}.
    """

    training: dict[str, Value]
    method: dict[str, Value]

    @property
    def name(self) -> str:
        """The candidate's name in file paths, for example `learning_rate=0.1,beta=3.0`."""
        return ",".join(f"{key}={_text(value)}" for key, value in (self.training | self.method).items())

    def resolved(self) -> dict[str, Any]:
        """Returns the candidate as a dict that can be written as JSON, with the keys `training` and `method`."""
        return {"training": self.training, "method": self.method}


def apply_candidate(recipe: Recipe, candidate: Candidate, short: Mapping[str, Any] | None = None) -> Recipe:
    """Returns the settings of a training with the values of a candidate of the tuning put in.

    Args:
        recipe: the method with its settings and the training settings, as in `experiment.recipes["rslad", "small"]`; it
            is not modified.
        candidate: the values to put in, one combination that the tuning tries: `training`, such as {"learning_rate":
            0.1}, and `method`, such as {"beta": 3.0}.
        short: training settings that differ in the short runs of tuning, for example {"epochs": 7}. The candidate's
            values take precedence. The epochs after which an average of the weights or their perturbation starts become
            fewer in proportion. None: a full-length training.

    Returns:
        A new Recipe with the changed method and training settings.
    """
    budget = _shortened(recipe.training, short or {}, candidate)
    settings = recipe.method.settings.model_dump() | candidate.method
    method = replace(recipe.method, settings=type(recipe.method.settings).model_validate(settings))
    return replace(recipe, training=Training.model_validate(budget), method=method)


def _shortened(training: Training, short: Mapping[str, Any], candidate: Candidate) -> dict[str, Any]:
    """Returns the training settings of a short run, or of a full-length one if `short` is empty."""
    budget = deep_merge(training.model_dump(), {**short, **candidate.training})
    for key in ("averaging", "weight_perturbation"):
        if budget[key] and "start" not in (short.get(key) or {}):
            budget[key] = budget[key] | {"start": budget[key]["start"] * budget["epochs"] // training.epochs}
    return budget


def tuning_candidates(
    file: ExperimentFile,
    recipes: Mapping[tuple[str, str], Recipe | None],
    parse_training: ParseTraining,
    problems: list[str],
) -> dict[str, dict[str, Candidate]]:
    """Makes the candidates (combinations of hyperparameter values) of every method of an experiment.

    Every method must have the same number of candidates, from 2 to 100. Teachers are not tuned.

    Args:
        file: the parsed experiment file, an object with its top-level keys as attributes, such as `file.seeds` and
            `file.dataset` (see `config.schema.ExperimentFile`). The grids are under `file.tuning`.
        recipes: (method, student), such as ("rslad", "small"), to a Recipe: the method with its settings, and the
            training settings. None in place of a Recipe with a mistake.
        parse_training: function that validates a mapping as training settings. It returns a pair: the settings (None
            after a mistake), and the list of messages.
        problems: list to which one message per mistake is appended, such as "seeds: 1 is named twice"; nothing is
            appended if all is correct.

    Returns:
        Method to its candidates by name, in the order of the grid, such as {"rslad": {"learning_rate=0.1":
        Candidate(...)}}. Empty if there is no `tuning`. After a mistake it may be empty or incomplete.
    """
    tuning = file.tuning
    if tuning is None:
        return {}
    if file.protocol == "official":
        problems.append("tuning: means nothing under the official protocol: there the papers' codes say what is used")
        return {}
    before, by_method = len(problems), {}
    for (method, _), recipe in recipes.items():  # under the controlled protocol the same for every student
        if recipe is not None:
            by_method.setdefault(method, recipe)
    for name in tuning.methods:
        if name not in file.methods:
            problems.append(f"{path_text(('tuning', 'methods', name))}: {unknown('method', name, file.methods)}")
    if not by_method:
        return {}  # the mistakes in the training settings are reported elsewhere
    budget = next(iter(by_method.values())).training.model_dump()
    problems += [f"tuning.training.{problem}" for problem in parse_training(deep_merge(budget, tuning.training))[1]]
    in_grid = {key for grid in (tuning.grid, *tuning.methods.values()) for key in grid}
    for key in tuning.training:
        if key in in_grid:
            problems.append(f"{path_text(('tuning', 'training', key))}: is in the grid, too: leave one of them out")
    axes = {}
    shared = _axes(tuning.grid, None, budget, parse_training, ("tuning", "grid"), problems)
    for name, recipe in by_method.items():
        where = ("tuning", "methods", name)
        axes[name] = shared | _axes(tuning.methods.get(name, {}), recipe, budget, parse_training, where, problems)
    if len(problems) > before:
        return {}
    _check_counts({name: math.prod(map(len, grid.values())) for name, grid in axes.items()}, problems)
    if len(problems) > before:
        return {}
    candidates = {name: _product(grid, by_method[name]) for name, grid in axes.items()}
    for name, of_method in candidates.items():
        for candidate in of_method.values():
            _check_candidate(name, candidate, by_method[name], tuning.training, parse_training, problems)
    return candidates


def _axes(
    grid: Mapping[str, list],
    recipe: Recipe | None,
    budget: dict,
    parse_training: ParseTraining,
    where: tuple,
    problems: list[str],
) -> dict[str, list[Value]]:
    """Validates a grid and returns the typed values of each key.

    Args:
        grid: setting to its values.
        recipe: settings of the method to which the grid belongs. None for the grid that all methods share.
        budget: settings of the training.
        parse_training: validates a mapping as training settings; returns them and a list of mistakes.
        where: keys that lead to the grid in the experiment file.
        problems: list to which one message per mistake is added.
    """
    settings = recipe.method.settings if recipe else None
    method_keys = list(type(settings).model_fields) if recipe else []
    axes: dict[str, list[Value]] = {}
    for key, values in grid.items():
        here = path_text((*where, key))
        if key in NOT_TUNED and key not in method_keys:
            problems.append(f"{here}: cannot be tuned: {NOT_TUNED[key]}")
            continue
        if key not in (*method_keys, *TUNED):
            problems.append(f"{here}: {unknown('key', key, [*method_keys, *TUNED])}")
            continue
        axes[key] = []
        for number, value in enumerate(values):
            wrong: list[str] = []
            if not isinstance(value, Value):
                wrong.append(f"{key}: input should be a number, a word, true or false, found {short_repr(value)}")
            elif key in method_keys:
                parsed = parse(type(settings), settings.model_dump() | {key: value}, (), wrong)
            else:
                parsed, wrong = parse_training(deep_merge(budget, {key: value}))
            if not wrong and not WORD.fullmatch(_text(value := getattr(parsed, key))):
                wrong.append(f"{key}: {short_repr(value)} cannot stand in a path")
            problems += [f"{here}[{number}]: {problem.partition(': ')[2]}" for problem in wrong]
            if not wrong and value in axes[key]:
                problems.append(f"{here}: {short_repr(value)} is named twice")
            axes[key].append(value)
    return axes


def _check_counts(counts: dict[str, int], problems: list[str]) -> None:
    many = Counter(counts.values())
    if len(many) > 1:
        listed = "; ".join(f"{count}: {', '.join(n for n in counts if counts[n] == count)}" for count in sorted(many))
        problems.append(
            f"tuning: every method must have the same number of candidates, found {listed}. Give each of them as many "
            "under tuning.methods"
        )
    elif min(many) < 2:
        problems.append("tuning: leaves nothing to choose: give tuning.grid a key with two values, or leave tuning out")
    elif max(many) > MOST:
        problems.append(f"tuning: {max(many)} candidates of each method are more than {MOST}: give fewer values")


def _product(axes: dict[str, list[Value]], recipe: Recipe) -> dict[str, Candidate]:
    """Makes a candidate for each point of the grid, by name."""
    method_keys, candidates = type(recipe.method.settings).model_fields, {}
    for values in product(*axes.values()):
        point = dict(zip(axes, values, strict=True))
        training = {key: value for key, value in point.items() if key not in method_keys}
        candidate = Candidate(training, {key: value for key, value in point.items() if key in method_keys})
        candidates[candidate.name] = candidate
    return candidates


def _check_candidate(
    name: str, candidate: Candidate, recipe: Recipe, short: dict, parse_training: ParseTraining, problems: list[str]
) -> None:
    """Checks a candidate for mistakes that appear only when several values come together."""
    wrong: list[str] = []
    settings = recipe.method.settings
    changed = parse(type(settings), settings.model_dump() | candidate.method, (), wrong)
    if changed is not None and changed.teachers() != settings.teachers():
        wrong.append("asks something else of the teacher than the method does: make it a method of its own")
    for budget in ({}, short):
        wrong += parse_training(_shortened(recipe.training, budget, candidate))[1]
    problems += [f"tuning: {name} with {candidate.name}: {problem}" for problem in dict.fromkeys(wrong)]


def _text(value: Value) -> str:
    return value if isinstance(value, str) else json.dumps(value)
