"""The tuning stage's candidates: the points of each method's grid, as many for one method as for any other."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from robust_distillation.config.parsing import overlaid, parse, path_text
from robust_distillation.config.schema import ExperimentFile
from robust_distillation.errors import shown, unknown
from robust_distillation.settings import Training

if TYPE_CHECKING:
    from robust_distillation.config.experiment import Recipe

MOST = 100  # candidates of a method
WORD = re.compile(r"[A-Za-z0-9.+-][A-Za-z0-9._+-]{0,31}")  # a value's text: it stands in paths
_SHORT = "a short run has its own, under tuning.training"
_SHARED = "all methods share it"
NOT_TUNED = {
    "epochs": _SHORT,
    "milestones": _SHORT,
    "selection": "it is what the candidates are compared by",
    "optimizer": "its name and options are no single value",
    "inner_attack": _SHARED,  # the adversary, and the steps that a method may spend on it
}
TUNED = [key for key in Training.model_fields if key not in NOT_TUNED]

Value = bool | int | float | str
Parsed = Callable[[dict[str, Any]], tuple[Training | None, list[str]]]  # a budget, and what is wrong with it


@dataclass(frozen=True)
class Candidate:
    """Values for the training budget, and for the method's own settings."""

    training: dict[str, Value]
    method: dict[str, Value]

    @property
    def name(self) -> str:
        """What stands in paths: learning_rate=0.1,beta=3.0."""
        return ",".join(f"{key}={_text(value)}" for key, value in (self.training | self.method).items())

    def resolved(self) -> dict[str, Any]:
        return {"training": self.training, "method": self.method}


def with_candidate(recipe: Recipe, candidate: Candidate, short: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe with the candidate's values; `short`: what differs in a short run besides."""
    budget = overlaid(recipe.training.model_dump(), {**(short or {}), **candidate.training})
    settings = recipe.method.settings.model_dump() | candidate.method
    method = replace(recipe.method, settings=type(recipe.method.settings).model_validate(settings))
    return replace(recipe, training=Training.model_validate(budget), method=method)


def candidates_of(
    file: ExperimentFile, recipes: Mapping[tuple[str, str], Recipe | None], parsed: Parsed, problems: list[str]
) -> dict[str, dict[str, Candidate]]:
    """By method and name, in the grid's order; what is wrong is added to `problems`. No teacher is tuned."""
    tuning = file.tuning
    if tuning is None:
        return {}
    if file.protocol == "official":
        problems.append("tuning: means nothing under the official protocol: there the papers' codes say what is used")
        return {}
    before, known = len(problems), {}
    for (method, _), recipe in recipes.items():  # under the controlled protocol the same for every student
        if recipe is not None:
            known.setdefault(method, recipe)
    for name in tuning.methods:
        if name not in file.methods:
            problems.append(f"{path_text(('tuning', 'methods', name))}: {unknown('method', name, file.methods)}")
    if not known:
        return {}  # what is wrong with the budget was said
    budget = next(iter(known.values())).training.model_dump()
    problems += [f"tuning.training.{problem}" for problem in parsed(overlaid(budget, tuning.training))[1]]
    in_grid = {key for grid in (tuning.grid, *tuning.methods.values()) for key in grid}
    for key in tuning.training:
        if key in in_grid:
            problems.append(f"{path_text(('tuning', 'training', key))}: is in the grid, too: leave one of them out")
    axes = {}
    shared = _axes(tuning.grid, None, budget, parsed, ("tuning", "grid"), problems)
    for name, recipe in known.items():
        own = _axes(tuning.methods.get(name, {}), recipe, budget, parsed, ("tuning", "methods", name), problems)
        axes[name] = shared | own
    if len(problems) > before:
        return {}
    _check_counts({name: math.prod(map(len, grid.values())) for name, grid in axes.items()}, problems)
    if len(problems) > before:
        return {}
    found = {name: _product(grid, known[name]) for name, grid in axes.items()}
    for name, candidates in found.items():
        for candidate in candidates.values():
            _check_candidate(name, candidate, known[name], tuning.training, parsed, problems)
    return found


def _axes(
    grid: Mapping[str, list], recipe: Recipe | None, budget: dict, parsed: Parsed, where: tuple, problems: list[str]
) -> dict[str, list[Value]]:
    """The values of each key as their types read them. recipe: of the method whose own grid this is."""
    settings = recipe.method.settings if recipe else None
    own = list(type(settings).model_fields) if recipe else []
    found: dict[str, list[Value]] = {}
    for key, values in grid.items():
        here = path_text((*where, key))
        if key in NOT_TUNED and key not in own:
            problems.append(f"{here}: cannot be tuned: {NOT_TUNED[key]}")
            continue
        if key not in (*own, *TUNED):
            problems.append(f"{here}: {unknown('key', key, [*own, *TUNED])}")
            continue
        found[key] = []
        for number, value in enumerate(values):
            wrong: list[str] = []
            if not isinstance(value, Value):
                wrong.append(f"{key}: input should be a number, a word, true or false, found {shown(value)}")
            elif key in own:
                read = parse(type(settings), settings.model_dump() | {key: value}, (), wrong)
            else:
                read, wrong = parsed(overlaid(budget, {key: value}))
            if not wrong and not WORD.fullmatch(_text(value := getattr(read, key))):
                wrong.append(f"{key}: {shown(value)} cannot stand in a path")
            problems += [f"{here}[{number}]: {problem.partition(': ')[2]}" for problem in wrong]
            if not wrong and value in found[key]:
                problems.append(f"{here}: {shown(value)} is named twice")
            found[key].append(value)
    return found


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
    own, found = type(recipe.method.settings).model_fields, {}
    for values in product(*axes.values()):
        point = dict(zip(axes, values, strict=True))
        training = {key: value for key, value in point.items() if key not in own}
        candidate = Candidate(training, {key: value for key, value in point.items() if key in own})
        found[candidate.name] = candidate
    return found


def _check_candidate(
    name: str, candidate: Candidate, recipe: Recipe, short: dict, parsed: Parsed, problems: list[str]
) -> None:
    """What only shows where several values come together."""
    wrong: list[str] = []
    settings = recipe.method.settings
    read = parse(type(settings), settings.model_dump() | candidate.method, (), wrong)
    if read is not None and read.teachers() != settings.teachers():
        wrong.append("asks something else of the teacher than the method does: make it a method of its own")
    for budget in ({}, short):
        wrong += parsed(overlaid(recipe.training.model_dump(), {**budget, **candidate.training}))[1]
    problems += [f"tuning: {name} with {candidate.name}: {problem}" for problem in dict.fromkeys(wrong)]


def _text(value: Value) -> str:
    return value if isinstance(value, str) else json.dumps(value)
