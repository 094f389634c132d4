"""The architectures: one file per family, each with `build(shape, classes, **arguments)`.

A network that says it is `foldable` can be followed by torch.fx, uses each layer once and draws nothing at random: so
batch norm may be folded into its convolutions (see `precision`).
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from robust_distillation.registry import Registry

__all__ = ["Argument", "arguments", "names", "registry"]

LARGEST = 100_000  # width, depth, size or number of classes that a stranger's file may ask for

registry = Registry("architecture", __name__, besides=("checkpoint", "flops", "frozen", "normalised", "output"))
names = registry.names


@dataclass(frozen=True)
class Argument:
    """One keyword argument of `build`: a type, or the values that a Literal allows, and the default."""

    type: str
    choices: tuple
    default: Any


def arguments(name: str) -> dict[str, Argument]:
    """The arguments of an architecture, read from the source of `build`: importing a model means importing torch, which
    checking a params file must not."""
    source = Path(find_spec(registry.module_name(name)).origin).read_text(encoding="utf-8")
    [build] = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == "build"]
    found = {}
    for argument, default in zip(build.args.kwonlyargs, build.args.kw_defaults, strict=True):
        kind, value = argument.annotation, ast.literal_eval(default)
        choices = ast.literal_eval(kind.slice) if isinstance(kind, ast.Subscript) else ()
        found[argument.arg] = Argument(type(value).__name__, choices, value)
    return found
