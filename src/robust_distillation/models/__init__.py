"""The architectures: one file per family, each with `build(shape, classes, **arguments)`."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from robust_distillation.registry import Registry

__all__ = ["arguments", "names", "registry"]

registry = Registry("architecture", __name__, besides=("checkpoint", "frozen", "output"))
names = registry.names


def arguments(name: str) -> dict[str, tuple[str, Any]]:
    """Each argument of an architecture with its type and default, read from the source of `build`: importing a model
    means importing torch, which checking a params file must not."""
    source = Path(find_spec(registry.module_name(name)).origin).read_text(encoding="utf-8")
    [build] = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == "build"]
    own = build.args.kwonlyargs
    return {
        argument.arg: (ast.unparse(argument.annotation), ast.literal_eval(default))
        for argument, default in zip(own, build.args.kw_defaults, strict=True)
    }
