"""Registries of methods, attacks, datasets and architectures: each module of a package is one entry.

An entry is imported only when it is used. So an experiment file can be checked in milliseconds, and the code
fingerprint of a run covers only the entries that the run names.
"""

from __future__ import annotations

import ast
import importlib
from functools import cached_property
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from robust_distillation.errors import UserError, unknown


class Registry:
    """Maps entry names to modules.

    The entries are the modules of a package and those that other distributions register as entry points. The name of
    the entry point group is that of the package, and an entry point reads `my-method = my_package.my_module`.
    """

    def __init__(self, kind: str, package: str, exclude: tuple[str, ...] = ()):
        """Creates a registry. Reads no file.

        Args:
            kind: kind of the entries in messages, for example "attack".
            package: dotted name of the package.
            exclude: names of modules of the package that are no entries.
        """
        self.kind = kind
        self.package = package
        self.exclude = set(exclude)

    @cached_property
    def modules(self) -> dict[str, str]:
        """Dotted module names by entry name, sorted by entry name.

        Raises:
            UserError: if two modules register the same entry name.
        """
        folder = Path(find_spec(self.package).origin).parent
        stems = {path.stem for path in folder.glob("*.py")} - self.exclude - {"__init__"}
        modules = {name: f"{self.package}.{name}" for name in stems}
        for entry in entry_points(group=self.package):
            if entry.name in modules:
                raise UserError(
                    f"{self.kind} {entry.name!r} is registered twice: by {entry.value} and by {modules[entry.name]}"
                )
            modules[entry.name] = entry.value
        return dict(sorted(modules.items()))

    def names(self) -> tuple[str, ...]:
        """Returns the names of all entries, sorted."""
        return tuple(self.modules)

    def module_name(self, name: str) -> str:
        """Returns the dotted module name of the entry `name`. Raises UserError if there is no such entry."""
        if name not in self.modules:
            raise UserError(unknown(self.kind, name, self.modules))
        return self.modules[name]

    def constant(self, name: str, constant: str, default: Any) -> Any:
        """Reads a constant from the source of an entry, without importing the entry (and so torch).

        Args:
            name: name of the entry.
            constant: name of a module-level constant whose value is a Python literal.
            default: value to return if the entry does not define the constant.

        Returns:
            The value of the constant.

        Raises:
            UserError: if there is no entry `name`.
            ValueError: if the value is not a literal.
        """
        source = Path(find_spec(self.module_name(name)).origin).read_text(encoding="utf-8")
        for node in ast.parse(source).body:
            targets = getattr(node, "targets", None) or [getattr(node, "target", None)]  # without and with annotation
            if isinstance(node, ast.Assign | ast.AnnAssign) and [getattr(t, "id", None) for t in targets] == [constant]:
                return ast.literal_eval(node.value)
        return default

    def module(self, name: str) -> ModuleType:
        """Imports the module of the entry `name`. Raises UserError if there is no such entry."""
        return importlib.import_module(self.module_name(name))
