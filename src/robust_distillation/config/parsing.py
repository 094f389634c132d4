"""Values against their types, and every mistake in our words: the field's path, what was given, what is allowed, the
nearest spelling."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from robust_distillation.errors import shown, unknown
from robust_distillation.settings import MISTAKE

REPLACED = {  # old keys of an experiment file, and what stands in their place
    "passes": "is no longer a setting: a method's own code gives the order of its passes. What TRADES and MART had as "
    "[clean, adversarial, clean] and [clean, adversarial] is their setting clean_first, IAD's second passes are "
    "repeat_passes",
    "fresh_clean": "is now called repeat_passes",
}


def overlaid(base: Mapping, overlay: Mapping) -> dict:
    """`base` with the overlay's values in their place; mappings are merged, and null removes an entry."""
    merged = dict(base)
    for key, value in overlay.items():
        if value is None and key in merged:
            del merged[key]
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = overlaid(merged[key], value)
        else:
            merged[key] = value
    return merged


def parse(model: type[BaseModel], value: Any, where: tuple, problems: list[str]) -> Any:
    """`model` of `value`, or None after adding what is wrong to `problems`."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        for found in error.errors():
            path = found["loc"]
            if path and path[-1] == "[key]":  # a name that cannot be one
                path = (*path[:-2], found["input"])
            problems.append(f"{path_text(where + path)}: {_wording(found, model, path)}")
        return None


def path_text(parts: tuple) -> str:
    """training.inner_attack.steps, seeds[2]; printable and on one line whatever the keys are."""
    text = ""
    for part in parts:
        index = isinstance(part, int) and not isinstance(part, bool)
        text += f"[{part}]" if index else f".{part if isinstance(part, str) and part.isprintable() else shown(part)}"
    return text.lstrip(".")[:200] or "the file"


def _wording(found: Any, model: type[BaseModel], path: tuple) -> str:
    """One mistake that pydantic found, in our words: what is allowed, and what was given."""
    kind, given, context = found["type"], found["input"], found.get("ctx", {})
    if kind == MISTAKE:
        return found["msg"]
    if kind == "extra_forbidden":
        if (place := ".".join(map(str, path))) in REPLACED:
            return REPLACED[place]
        return unknown("key", path[-1], _fields(model, path[:-1]))
    if kind == "missing":
        return "is missing"
    if kind == "literal_error":
        return unknown("value", given, re.findall(r"'([^']*)'", context["expected"]))
    if kind == "string_pattern_mismatch":
        if path[-1] == "device":
            return f"unknown device {shown(given)}. Allowed: auto, cpu, cuda, cuda:N"
        if path[-1] == "sha256":
            return f"{shown(given)} is no sha256: 64 digits 0-9 and a-f"
        rule = "use letters, digits, '.', '_' and '-', first a letter or a digit, at most 64"
        return f"{shown(given)} cannot be a name: {rule}"
    if kind == "too_short":
        return "is empty: give at least one"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return f"input should be a mapping, found {shown(given)}"
    message = found["msg"].removeprefix("Value error, ")
    if kind == "value_error" and isinstance(given, list):  # of what a check of ours let pass one by one
        given = ", ".join(map(str, given))
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
