"""The source of a network as one file of plain torch."""

from __future__ import annotations

import ast
import sys
from importlib.util import find_spec
from pathlib import Path

from robust_distillation import models
from robust_distillation.errors import UserError

ALLOWED = {"torch", *sys.stdlib_module_names}
NORMALISED = "robust_distillation.models.normalised"


def standalone_source(architecture: str, normalised: bool) -> str:
    """The file of an architecture, and where asked for the class `Normalised` behind it.

    Raises UserError where the file needs more than torch and Python's own library.
    """
    module = models.registry.module_name(architecture)
    source = _source(module)
    if needed := sorted(_imported(source) - ALLOWED):
        raise UserError(
            f"architecture {architecture}: its file cannot stand alone, for it imports {', '.join(needed)}; only "
            "networks in plain torch are exported"
        )
    if not normalised:
        return source
    text = _source(NORMALISED)
    body = ast.parse(text).body[2:]  # less its docstring and the import that must come first in a file
    return source + "\n\n" + "\n".join(text.splitlines()[body[0].lineno - 1 :]) + "\n"


def _source(module: str) -> str:
    return Path(find_spec(module).origin).read_text(encoding="utf-8")


def _imported(source: str) -> set[str]:
    """The top packages that a file imports; `.` for those of its own package."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." if node.level else node.module.partition(".")[0])
    return found
