"""Which code a step really uses, as one hash: what makes a rule run again is meaning, not file times.

The hash covers the syntax trees, without comments and docstrings, of a step's modules and of all modules of this
package that they import, also inside functions. It stops at config, settings and cli (resolved values are a rule's
params instead) and at the registries, which import what they are asked for by name: only the named module is then
followed.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PACKAGE = __name__.partition(".")[0]
STOPS = {PACKAGE, f"{PACKAGE}.config", f"{PACKAGE}.settings", f"{PACKAGE}.cli"}


def fingerprint(modules: Iterable[str]) -> str:
    """sha256 over the closure of `modules` (dotted names)."""
    found = hashlib.sha256()
    for module in sorted(closure(modules)):
        found.update(f"{module}\0{_meaning(module)}\0".encode())
    return found.hexdigest()


def closure(modules: Iterable[str]) -> set[str]:
    """`modules`, what they import, and the packages they lie in, as far as it is followed."""
    todo, seen = list(modules), set()
    while todo:
        module = todo.pop()
        if module in seen or module in STOPS or module.startswith(f"{PACKAGE}.config."):
            continue
        seen.add(module)
        todo += _imports(module)
    return seen


@cache
def _source(module: str) -> Path | None:
    """The file of a module, None where there is none; found by its place, for importing it would take seconds."""
    top, *parts = module.split(".")
    spec = find_spec(top)
    if spec is None or spec.origin is None:
        return None
    if not parts:
        return Path(spec.origin)
    place = Path(spec.origin).parent.joinpath(*parts)
    return next((file for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file()), None)


@cache
def _tree(module: str) -> ast.Module:
    """The syntax tree of a module, without comments and docstrings."""
    tree = ast.parse(_source(module).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree


@cache
def _imports(module: str) -> tuple[str, ...]:
    """The modules of the same distribution's package that `module` imports, and its parent package."""
    top, parent = module.partition(".")[0], module.rpartition(".")[0]
    names = [parent] if parent else []
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module if _source(module).name == "__init__.py" else parent
                base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], base]).rstrip(".")
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return tuple(name for name in names if name.partition(".")[0] in {top, PACKAGE} and _source(name))


@cache
def _meaning(module: str) -> str:
    """The source as Python writes its syntax tree (`ast.dump` would differ between versions of Python)."""
    return ast.unparse(_tree(module))
