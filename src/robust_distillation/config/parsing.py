"""Parses values of an experiment file into typed settings, and words every mistake.

A message has the path of the field, the value that was found, what is allowed and the nearest spelling.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from robust_distillation.errors import short_repr, unknown
from robust_distillation.settings import MISTAKE

REPLACED = {  # old keys of an experiment file, and what stands in their place
    "passes": "is no longer a setting: a method's own code gives the order of its passes. What TRADES and MART had as "
    "[clean, adversarial, clean] and [clean, adversarial] is their setting clean_first, IAD's second passes are "
    "repeat_passes",
    "fresh_clean": "is now called repeat_passes",
}


def deep_merge(base: Mapping, overlay: Mapping) -> dict:
    """Merges two nested mappings into a new dict.

    Args:
        base: the mapping to change; it is not modified.
        overlay: values that replace those of `base`. Mappings are merged key by key; None removes the key from `base`.
            An `augmentation` with another name replaces the whole mapping, as its options are others.

    Returns:
        The merged mapping, for example `{"a": {"b": 1, "c": 3}}` for `{"a": {"b": 1, "c": 2}}` and `{"a": {"c": 3}}`.
    """
    merged = dict(base)
    for key, value in overlay.items():
        if value is None and key in merged:
            del merged[key]
        elif (
            isinstance(value, Mapping)
            and isinstance(merged.get(key), Mapping)
            and not _renamed(key, merged[key], value)
        ):
            merged[key] = deep_merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def _renamed(key: Any, base: Mapping, overlay: Mapping) -> bool:
    return key == "augmentation" and overlay.get("name", base.get("name")) != base.get("name")


def parse(model: type[BaseModel], value: Any, where: tuple, problems: list[str]) -> Any:
    """Validates a value against a pydantic model.

    Args:
        model: the pydantic class of which an instance is made, such as `config.schema.ExperimentFile`.
        value: the value to validate, as YAML gives it: usually a mapping of the class's fields to values.
        where: keys that lead to the value in the experiment file, such as ("teachers", "wide"); () for the whole file.
        problems: list to which one message per mistake is added, such as "teachers.wide.seed: is missing".

    Returns:
        An instance of `model`. None if there was a mistake.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        for mistake in error.errors():
            path = mistake["loc"]
            if path and path[-1] == "[key]":  # the key is not a valid name
                path = (*path[:-2], mistake["input"])
            problems.append(f"{path_text(where + path)}: {_wording(mistake, model, path)}")
        return None


def path_text(parts: tuple) -> str:
    """Formats the keys that lead to a value in the experiment file as text, such as `training.inner_attack.steps`.

    Args:
        parts: the keys; a number is a position in a list: ("seeds", 2) becomes `seeds[2]`. () becomes `the file`.

    Returns:
        Printable text on one line, at most 200 characters long, whatever the keys are.
    """
    text = ""
    for part in parts:
        index = isinstance(part, int) and not isinstance(part, bool)
        text += (
            f"[{part}]" if index else f".{part if isinstance(part, str) and part.isprintable() else short_repr(part)}"
        )
    return text.lstrip(".")[:200] or "the file"


def _wording(mistake: Any, model: type[BaseModel], path: tuple) -> str:
    """Words one mistake that pydantic reports: what is allowed, and the value that was found."""
    kind, value, context = mistake["type"], mistake["input"], mistake.get("ctx", {})
    if kind == MISTAKE:
        return mistake["msg"]
    if kind == "extra_forbidden":
        if (place := ".".join(map(str, path))) in REPLACED:
            return REPLACED[place]
        return unknown("key", path[-1], _fields(model, path[:-1]))
    if kind == "missing":
        return "is missing"
    if kind == "literal_error":
        return unknown("value", value, re.findall(r"'([^']*)'", context["expected"]))
    if kind == "string_pattern_mismatch":
        if path[-1] == "device":
            return f"unknown device {short_repr(value)}. Allowed: auto, cpu, cuda, cuda:N"
        if path[-1] == "sha256":
            return f"{short_repr(value)} is no sha256: 64 digits 0-9 and a-f"
        rule = "use letters, digits, '.', '_' and '-', first a letter or a digit, at most 64"
        return f"{short_repr(value)} cannot be a name: {rule}"
    if kind == "too_short":
        return "is empty: give at least one"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return f"input should be a mapping, found {short_repr(value)}"
    message = mistake["msg"].removeprefix("Value error, ")
    if kind == "value_error" and isinstance(value, list):  # from a validator of our own, over the items of a list
        value = ", ".join(map(str, value))
    return f"{message[0].lower()}{message[1:]}, found {short_repr(value)}"


def _fields(model: Any, path: tuple) -> list[str]:
    """Lists the keys that are allowed in the nested settings at `path`."""
    for part in path:
        if isinstance(part, str) and isinstance(model, type) and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            model = next(
                (a for a in (annotation, *getattr(annotation, "__args__", ())) if hasattr(a, "model_fields")), model
            )
    return list(model.model_fields)
