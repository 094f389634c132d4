"""Reads an experiment file, or names every mistake in it: the field's path, what was given, what is allowed, the
nearest spelling. No torch is imported and nothing is written."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from robust_distillation import attacks, data, methods, models
from robust_distillation.config.experiment import NO_TEACHER, Experiment, NamedMethod, Teacher
from robust_distillation.config.schema import Evaluation, ExperimentFile, TeacherEntry, Training
from robust_distillation.errors import UserError, shown, unknown

LARGEST_FILE = 200_000  # bytes: a hundred times the largest of ours
MOST_PROBLEMS = 10  # that one message names


def load(path: str | Path, overlay: str | Path | None = None) -> Experiment:
    """The experiment in `path`, with the values of the overlay put in their place. Raises UserError."""
    raw = _read_yaml(path)
    arguments, source = f"--experiment {shlex.quote(str(path))}", str(path)
    if overlay is not None:
        raw = _overlaid(raw, _read_yaml(overlay))
        arguments, source = f"{arguments} --overlay {shlex.quote(str(overlay))}", f"{path} with {overlay}"
    problems: list[str] = []
    experiment = _resolve(raw, arguments, problems)
    if problems:
        lines = [f"{source}: {problem}" for problem in problems[:MOST_PROBLEMS]]
        if len(problems) > MOST_PROBLEMS:
            lines.append(f"{source}: and {len(problems) - MOST_PROBLEMS} more")
        raise UserError("\n".join(lines))
    return experiment


def _read_yaml(path: str | Path) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import DuplicateKeyError
    from ruamel.yaml.error import YAMLError
    from ruamel.yaml.events import AliasEvent

    try:
        if Path(path).stat().st_size > LARGEST_FILE:
            raise UserError(f"{path}: too large for an experiment file (more than {LARGEST_FILE} bytes)")
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"experiment file {path}: cannot be read ({reason})") from error
    try:
        yaml = YAML(typ="safe", pure=True)
        for event in yaml.parse(text):
            if isinstance(event, AliasEvent):  # a few nested ones can stand for more than any memory holds
                line = event.start_mark.line + 1
                raise UserError(f"{path}: line {line}: aliases (*{event.anchor}) are not allowed: write the value out")
        value = yaml.load(text)
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1
        what = error.problem.split(" with value")[0].replace("found duplicate", "duplicate")
        raise UserError(f"{path}: line {line}: {what}. Give each name once") from error
    except YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise UserError(f"{path}: {where}not valid YAML ({problem or 'a character that is not allowed'})") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        # What ruamel meets in tagged values, keys that are no names, numbers beyond reason.
        reason = str(error).partition("\n")[0]
        reason = "a number beyond reason" if "digits" in reason else shown(reason)
        raise UserError(f"{path}: not valid YAML (a value in it cannot be read: {reason})") from error
    if value is None:
        raise UserError(f"{path}: is empty: an experiment file is a mapping of settings")
    if not isinstance(value, dict):
        raise UserError(f"{path}: an experiment file is a mapping of settings, found {shown(value)}")
    return value


def _overlaid(base: Mapping, overlay: Mapping) -> dict:
    """`base` with the overlay's values in their place; mappings are merged, and null removes an entry."""
    merged = dict(base)
    for key, value in overlay.items():
        if value is None and key in merged:
            del merged[key]
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _overlaid(merged[key], value)
        else:
            merged[key] = value
    return merged


def _parse(model: type[BaseModel], value: Any, where: tuple, problems: list[str]) -> Any:
    """`model` of `value`, or None after adding what is wrong to `problems`."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        for found in error.errors():
            path = found["loc"]
            if path and path[-1] == "[key]":  # a name that cannot be one
                path = (*path[:-2], found["input"])
            problems.append(f"{_path(where + path)}: {_wording(found, model, path)}")
        return None


def _path(parts: tuple) -> str:
    """training.inner_attack.steps, seeds[2]; printable and on one line whatever the keys are."""
    text = ""
    for part in parts:
        index = isinstance(part, int) and not isinstance(part, bool)
        text += f"[{part}]" if index else f".{part if isinstance(part, str) and part.isprintable() else shown(part)}"
    return text.lstrip(".")[:200] or "the file"


def _wording(found: Any, model: type[BaseModel], path: tuple) -> str:
    """One mistake that pydantic found, in our words: what is allowed, and what was given."""
    kind, given, context = found["type"], found["input"], found.get("ctx", {})
    if kind == "extra_forbidden":
        return unknown("key", path[-1], _fields(model, path[:-1]))
    if kind == "missing":
        return "is missing"
    if kind == "literal_error":
        return unknown("value", given, re.findall(r"'([^']*)'", context["expected"]))
    if kind == "string_pattern_mismatch":
        if path[-1] == "device":
            return f"unknown device {shown(given)}. Allowed: auto, cpu, cuda, cuda:N"
        rule = "use letters, digits, '.', '_' and '-', first a letter or a digit, at most 64"
        return f"{shown(given)} cannot be a name: {rule}"
    if kind == "too_short":
        return "is empty: give at least one"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return f"input should be a mapping, found {shown(given)}"
    message = found["msg"].removeprefix("Value error, ")
    return f"{message[0].lower()}{message[1:]}, found {shown(given)}"


def _fields(model: Any, path: tuple) -> list[str]:
    """The keys allowed in the nested settings at `path`."""
    for part in path:
        if isinstance(part, str) and isinstance(model, type) and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            model = next(
                (a for a in (annotation, *getattr(annotation, "__args__", ())) if hasattr(a, "model_fields")), model
            )
    return list(model.model_fields)


def _resolve(raw: dict, arguments: str, problems: list[str]) -> Experiment | None:
    file = _parse(ExperimentFile, raw, (), problems)
    if file is None:
        return None

    training = _training(file.training, ("training",), problems)
    teachers = {
        name: _teacher(name, entry or {}, file.training, training, problems) for name, entry in file.teachers.items()
    }
    students = {}
    for name, entry in file.students.items():
        students[name] = _architecture(entry or {}, name, ("students", name), problems)
    named = {name: _method(entry or {}, name, ("methods", name), problems) for name, entry in file.methods.items()}

    _check_data(file, problems)
    _check_evaluation(file.evaluation, problems)
    if len(set(file.seeds)) < len(file.seeds):
        twice = next(seed for seed in file.seeds if file.seeds.count(seed) > 1)
        problems.append(f"seeds: {twice} is named twice")
    if NO_TEACHER in file.teachers:
        problems.append(f"teachers.{NO_TEACHER}: this name is kept for methods that need no teacher; choose another")
    if not file.teachers:
        needing = [name for name, method in named.items() if method and method.needs.teacher]
        problems.extend(f"methods.{name}: needs a teacher, but no teacher is given under teachers" for name in needing)
    groups = {
        "teacher": {*file.teachers, NO_TEACHER},
        "student": file.students,
        "method": file.methods,
        "seed": file.seeds,
    }
    for i, rule in enumerate(file.exclude):
        given = rule.model_dump(exclude_none=True)
        if not given:
            problems.append(f"exclude[{i}]: matches every run. Give a teacher, student, method or seed")
        for key, value in given.items():
            if value not in groups[key]:
                problems.append(f"exclude[{i}].{key}: {unknown(key, value, map(str, groups[key]))}")
    if problems:
        return None
    experiment = Experiment(file, training, teachers, students, named, arguments)
    if not experiment.runs:
        problems.append("exclude: leaves no run")
    return experiment


def _training(budget: dict, where: tuple, problems: list[str]) -> Training | None:
    training = _parse(Training, budget, where, problems)
    if training and training.milestones != sorted(set(training.milestones)):
        problems.append(f"{_path(where)}.milestones: {str(training.milestones)[:80]} must be ascending")
    elif training and training.milestones and training.milestones[-1] >= training.epochs:
        problems.append(
            f"{_path(where)}.milestones: {training.milestones[-1]} is never reached in {training.epochs} epochs"
        )
    return training


def _teacher(name: str, entry: dict, budget: dict, training: Training | None, problems: list[str]) -> Teacher | None:
    where, before = ("teachers", name), len(problems)
    keys = list(TeacherEntry.model_fields)
    own = _parse(TeacherEntry, {key: value for key, value in entry.items() if key in keys}, where, problems)
    given = {key: value for key, value in entry.items() if key not in keys}
    architecture = _architecture(given, name, where, problems, besides=keys)
    if own is None:
        return None
    if "method" not in own.trained_by:
        problems.append(f"{_path(where)}.trained_by.method: is missing")
        return None
    method = _method(own.trained_by, "", (*where, "trained_by"), problems)
    if method and method.needs.teacher:
        problems.append(f"{_path(where)}.trained_by.method: {method.kind!r} needs a teacher itself")
    if own.training and training:  # what is wrong with the budget itself was said already
        training = _training(_overlaid(budget, own.training), (*where, "training"), problems)
    if len(problems) > before or training is None:
        return None
    return Teacher(architecture, method, own.seed, own.checkpoint, training)


def _method(entry: dict, default: str, where: tuple, problems: list[str]) -> NamedMethod | None:
    named = (*where, "method") if "method" in entry else where
    kind = entry.get("method", default)
    entry = {key: value for key, value in entry.items() if key != "method"}
    try:
        if not isinstance(kind, str):
            raise UserError(unknown("method", kind, methods.names()))
        method = methods.get(kind)
    except UserError as error:
        problems.append(f"{_path(named)}: {error}")
        return None
    settings = _parse(method, entry, where, problems)
    return None if settings is None else NamedMethod(kind, settings)


def _architecture(
    given: dict, default: str, where: tuple, problems: list[str], besides: tuple | list = ()
) -> dict[str, Any]:
    """`{"name": ..., **all arguments}`; each argument must have the type that `build` declares, numbers be positive."""
    named = (*where, "architecture") if "architecture" in given else where
    name = given.get("architecture", default)
    given = {key: value for key, value in given.items() if key != "architecture"}
    try:
        if not isinstance(name, str):
            raise UserError(unknown("architecture", name, models.names()))
        known = models.arguments(name)
    except UserError as error:
        problems.append(f"{_path(named)}: {error}")
        return {}
    for key, value in given.items():
        here, argument = _path((*where, key)), known.get(key)
        if argument is None:
            problems.append(f"{here}: {unknown('key', key, [*known, 'architecture', *besides])}")
        elif type(value).__name__ != argument.type:
            problems.append(f"{here}: input should be of type {argument.type}, found {shown(value)}")
        elif argument.choices and value not in argument.choices:
            problems.append(
                f"{here}: input should be one of {', '.join(map(str, argument.choices))}, found {shown(value)}"
            )
        elif argument.type in ("int", "float") and value <= 0:
            problems.append(f"{here}: input should be greater than 0, found {shown(value)}")
    return {"name": name, **{key: given.get(key, argument.default) for key, argument in known.items()}}


def _check_data(file: ExperimentFile, problems: list[str]) -> None:
    if file.dataset.name not in data.names():
        problems.append(f"dataset.name: {unknown('dataset', file.dataset.name, data.names())}")
        return
    info = data.info(file.dataset.name)
    for split, limit in file.dataset.limit.model_dump(exclude_none=True).items():
        if limit > info.sizes[split]:
            problems.append(f"dataset.limit.{split}: {limit} is more than the {info.sizes[split]} images of the split")
    test = file.dataset.limit.test or info.sizes["test"]
    if (file.evaluation.images or 0) > test:
        problems.append(f"evaluation.images: {file.evaluation.images} is more than the {test} images of the test split")


def _check_evaluation(evaluation: Evaluation, problems: list[str]) -> None:
    for i, name in enumerate(evaluation.attacks):
        if name not in attacks.names():
            problems.append(f"evaluation.attacks[{i}]: {unknown('attack', name, attacks.names())}")
    for key in ("attacks", "checkpoints"):
        names = getattr(evaluation, key)
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            problems.append(f"evaluation.{key}: {shown(twice)} is named twice")
