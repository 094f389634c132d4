"""Hashes the code that a step uses, so that Snakemake reruns a job if its code changes and not if file times do.

The hash covers a step's modules and all modules that they import, also inside functions. A module is represented by its
syntax tree, by the data files beside it that it names, and by the content of the modules from which it imports names.

Not hashed is everything that decides no number: comments, docstrings, the text of messages (literals among the
arguments of `raise` and of log calls), import statements, imports for type checkers, and the modules in STOPS. Names of
modules are not hashed, so a file that moves changes nothing. A registry imports the module that a run names; only that
module is followed.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

PACKAGE = __name__.partition(".")[0]

# Modules, and packages with all that is in them, at which the hash stops, each with the reason why no number can
# depend on it. What decides a number must lie outside of them: tests/test_fingerprint.py changes one constant in each
# and compares the miniature's outcomes.
STOPS = {
    "": "offers the public functions; imports nothing by itself",
    "errors": "words messages",
    "files": "reads and writes files; what is in them is hashed in the records",
    "registry": "finds the module of a name; that module is hashed",
    "resume": "saves and restores a job's state; tests compare the bytes",
    "device.gpus": "assigns a GPU to a job",
    "settings": "types of settings; their values are the step's settings",
    "config": "reads the experiment file; what it resolves to is the step's settings",
    "layout": "names paths; they are the step's inputs and outputs",
    "pipeline.energy": "measures for the record",
    "pipeline.fingerprint": "hashes the code; tests show of what",
    "pipeline.metadata": "keeps what Snakemake knows of files",
    "pipeline.models": "lists the networks; which one a step is about is in its settings",
    "pipeline.record": "writes records, which no step that computes reads",
    "pipeline.reproduce": "starts Snakemake",
    "pipeline.run": "calls what a step runs and writes its record",
    "pipeline.step": "says what a step is",
    "pipeline.steps": "declares the steps; their inputs, outputs and settings are compared themselves",
    "pipeline.versioning": "writes DVC's stage",
    "planning.cluster": "asks a cluster for time and memory",
    "planning.cost": "counts what jobs will cost",
    "planning.jobs": "orders jobs",
    "planning.method_list": "prints the methods",
    "planning.plan": "prints what an experiment will cost",
    "planning.speed": "measures this machine",
    "reporting.power": "prints which differences an experiment can decide",
    "audit": "verifies what is there; writes nothing",
    "export": "hands finished results on",
    "cli": "parses arguments and calls one function of a step",
}
REGISTRIES = {  # followed for what they import, but not hashed themselves: they find the module that a run names
    "attacks",
    "augmentations",
    "data",
    "methods",
    "metrics",
    "models",
}
LOGGERS = {"log", "logger", "logging"}
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}


def fingerprint(modules: Iterable[str]) -> str:
    """Computes the code hash: a hash of the source code of modules and of everything that they import.

    The workflow runs a job (one run of a step, such as the training of one student) again if this hash changes.
    Comments, docstrings, the text of messages, import statements and STOPS, the modules whose code is left out of the
    hash (such as `cli` and `planning.plan`, on which no number depends), do not change it. Nor does the order of
    `modules`.

    Args:
        modules: dotted names of the modules, for example `robust_distillation.stages.train`. The modules are read, not
            imported.

    Returns:
        The sha256, 64 hexadecimal digits.
    """
    contents = {content for module in closure(modules) if (content := _content(module))}
    return hashlib.sha256("".join(sorted(contents)).encode()).hexdigest()


def closure(modules: Iterable[str]) -> set[str]:
    """Lists the modules that the code hash of `pipeline.fingerprint.fingerprint` covers.

    Imports are followed within this package and within the top-level package of each module. STOPS, the modules whose
    code is left out of the hash (such as `cli`, on which no number depends), are not in the result, also if `modules`
    names them.

    They are `modules`, all that they import, and the packages in which they lie.

    Args:
        modules: dotted names of the modules, for example `robust_distillation.stages.train`. The modules are read, not
            imported.

    Returns:
        Dotted names, in no order, for example `{"robust_distillation.stages.train", "robust_distillation.losses",
        ...}`.
    """
    todo, seen = list(modules), set()
    while todo:
        module = todo.pop()
        if module in seen or stop_of(module) is not None:
            continue
        seen.add(module)
        todo += _source(module).imports
        parent = module.rpartition(".")[0]
        if parent and _file(parent):
            todo.append(parent)
    return seen


def stop_of(module: str) -> str | None:
    """Returns the entry of STOPS to which a module belongs; STOPS are the modules whose code is left out of the code
    hash.

    The code hash is a hash of the source code that the output depends on, see `pipeline.fingerprint.fingerprint`.

    Args:
        module: dotted name of the module, for example `robust_distillation.cli.steps`, for which `cli` is returned.

    Returns:
        The key of the dict STOPS: the name of the module, or of a package around it, without `robust_distillation.`; ""
        for `robust_distillation` alone. None if the module is hashed.
    """
    top, *parts = module.split(".")
    if top != PACKAGE:
        return None
    if not parts:
        return ""
    prefixes = (".".join(parts[:length]) for length in range(1, len(parts) + 1))
    return next((prefix for prefix in prefixes if prefix in STOPS), None)


class _Source(NamedTuple):
    """Content of one module, without names of modules of this package."""

    meaning: str  # its code, as Python writes its syntax tree (`ast.dump` would differ between versions of Python)
    imports: tuple[str, ...]  # the modules of this package, or of its own, that it imports
    bindings: tuple[tuple[str, str, str], ...]  # local name, attribute, and the module if it is among `imports`
    data: tuple[tuple[str, str], ...]  # name and sha256 of each data file beside it that it names


@cache
def _source(module: str) -> _Source:
    file = _file(module)
    return _parsed(module, file, file.read_text(encoding="utf-8"), _data(file.parent))


@cache
def _file(module: str) -> Path | None:
    """Finds the file of a module by its name, without importing it. None if there is no such file."""
    top, *parts = module.split(".")
    root = _root(top)
    if root is None or not parts:
        return root if root and root.is_file() else None
    place = root.parent.joinpath(*parts)
    return next((file for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file()), None)


@cache
def _root(top: str) -> Path | None:
    spec = find_spec(top)
    if spec and not spec.origin:  # a package without an __init__.py
        return Path(next(iter(spec.submodule_search_locations))) / "__init__.py"
    return Path(spec.origin) if spec else None


@cache
def _parsed(module: str, file: Path, text: str, beside: tuple[tuple[str, str], ...]) -> _Source:
    tree = _WithoutTypeChecking().visit(ast.parse(text))
    bindings = tuple(sorted(set(_bindings(module, file, tree))))
    literals = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    data = tuple((name, digest) for name, digest in beside if name.partition("/")[0] in literals)
    meaning = ast.unparse(ast.fix_missing_locations(_Meaning().visit(tree)))
    return _Source(meaning, tuple(sorted({target for *_, target in bindings if target})), bindings, data)


@cache
def _data(folder: Path) -> tuple[tuple[str, str], ...]:
    """Returns path and sha256 of the data files in `folder`, and of those in folders there that are no packages."""
    found = []
    for place in sorted(folder.iterdir()):
        if place.name.startswith(("_", ".")) or (place / "__init__.py").is_file():
            continue
        files = sorted(place.rglob("*")) if place.is_dir() else [place]
        found += [part for part in files if part.is_file() and part.suffix not in (".py", ".pyc")]
    return tuple((part.relative_to(folder).as_posix(), _sha256(part.read_bytes())) for part in found)


def _bindings(module: str, file: Path, tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    """Yields local name, attribute and module of each imported name.

    For a name of another distribution the attribute is the whole dotted name, and the module is "". Names of modules at
    which the hash stops are left out.
    """
    top = module.partition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named = [(alias.asname or alias.name.partition(".")[0], alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
                base = ".".join([*above[: len(above) - node.level + 1], base]).rstrip(".")
            named = [(alias.asname or alias.name, base, alias.name) for alias in node.names]
        else:
            continue
        for local, base, attribute in named:
            if base.partition(".")[0] not in {top, PACKAGE}:
                yield local, f"{base}.{attribute}".rstrip("."), ""
                continue
            target = f"{base}.{attribute}"
            if not attribute or _file(target) is None:
                target = base
            else:
                attribute = ""
            if _file(target) is not None and stop_of(target) is None:
                yield local, attribute, target


@cache
def _content(module: str) -> str:
    """Computes the sha256 of a module's code, imported names and data files. "" if the module is empty."""
    source = _source(module)
    if module.removeprefix(f"{PACKAGE}.") in REGISTRIES or not (source.meaning or source.bindings):
        return ""
    names = [(local, attribute, target and _meaning(target)) for local, attribute, target in source.bindings]
    return _sha256(repr((source.meaning, sorted(names), source.data)).encode())


@cache
def _meaning(module: str) -> str:
    """Computes the sha256 of a module's own code, which represents the module in those that import it."""
    return "" if module.removeprefix(f"{PACKAGE}.") in REGISTRIES else _sha256(_source(module).meaning.encode())


def forget() -> None:
    """Clears this module's caches of parsed files, so that files that changed during the process are read again."""
    for cached in (_root, _source, _file, _data, _content, _meaning):
        cached.cache_clear()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class _WithoutTypeChecking(ast.NodeTransformer):
    """Removes the branches of `if TYPE_CHECKING` from a syntax tree."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        if "TYPE_CHECKING" in (getattr(node.test, "id", None), getattr(node.test, "attr", None)):
            return node.orelse or ast.Pass()
        return node


class _Meaning(ast.NodeTransformer):
    """Removes docstrings, import statements and the text of messages from a syntax tree."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
        super().generic_visit(node)
        if isinstance(body := getattr(node, "body", None), list):  # a body of imports only becomes `pass`
            body[:] = [statement for statement in body if not isinstance(statement, ast.Pass)]
            if not body and not isinstance(node, ast.Module):
                body.append(ast.Pass())
        return node

    def visit_Import(self, node: ast.Import) -> None:
        return None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        return None

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.exc, ast.Call):
            _silence(node.exc)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr in LEVELS:
            logger = function.value.func if isinstance(function.value, ast.Call) else function.value
            if getattr(logger, "id", None) in LOGGERS or getattr(logger, "attr", None) == "getLogger":
                _silence(node)
        return node


def _silence(call: ast.Call) -> None:
    """Empties the literal text among the arguments of a call, in f-strings too."""
    call.args = [_Silent().visit(argument) for argument in call.args]
    for keyword in call.keywords:
        keyword.value = _Silent().visit(keyword.value)


class _Silent(ast.NodeTransformer):
    """Empties literal text in an expression."""

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant("") if isinstance(node.value, str) else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        values = [self.visit(value) for value in node.values if isinstance(value, ast.FormattedValue)]
        return ast.JoinedStr(values) if values else ast.Constant("")

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.AST:
        return ast.FormattedValue(self.visit(node.value), node.conversion, None)
