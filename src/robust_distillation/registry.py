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
from typing import Any, TypeVar

from robust_distillation.errors import UserError, unknown

Class = TypeVar("Class")


class Registry:
    """Maps names of entries (methods, attacks, datasets or architectures) to Python modules.

    The entries are the modules of a package and those that other distributions register as entry points. The name of
    the entry point group is that of the package, and an entry point reads `my-method = my_package.my_module`.

    For example `Registry("attack", "robust_distillation.attacks").module("pgd20")` imports the module
    `robust_distillation.attacks.pgd20`.
    """

    def __init__(self, kind: str, package: str, exclude: tuple[str, ...] = (), functions: tuple[str, ...] = ()):
        """Creates a registry. Reads no file.

        Args:
            kind: kind of the entries in messages, for example "attack".
            package: dotted name of the package whose modules are the entries, for example
                "robust_distillation.attacks".
            exclude: names of modules of the package that are no entries.
            functions: names of the functions that every entry must define; `module` checks them.
        """
        self.kind = kind
        self.package = package
        self.exclude = set(exclude)
        self.functions = functions

    @cached_property
    def modules(self) -> dict[str, str]:
        """Name of each entry to the dotted name of its module, sorted by entry name; no entry is imported.

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
        """Returns the dotted name of the module of the entry `name`, such as "robust_distillation.attacks.pgd20".

        Raises:
            UserError: if there is no such entry. The message has the nearest allowed name.
        """
        if name not in self.modules:
            raise UserError(unknown(self.kind, name, self.modules))
        return self.modules[name]

    def constant(self, name: str, constant: str, default: Any) -> Any:
        """Reads a constant from the source of an entry, without importing the entry (and so torch).

        Args:
            name: name of the entry, for example "square".
            constant: name of a module-level constant whose value is a Python literal, for example "NORMS".
            default: value to return if the entry does not define the constant.

        Returns:
            The value of the first assignment of the constant, or `default`.

        Raises:
            UserError: if there is no entry `name`, or if the value is not a literal.
        """
        file = self.file(name)
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            targets = getattr(node, "targets", None) or [getattr(node, "target", None)]  # without and with annotation
            if isinstance(node, ast.Assign | ast.AnnAssign) and [getattr(t, "id", None) for t in targets] == [constant]:
                try:
                    return ast.literal_eval(node.value)
                except ValueError as error:
                    raise UserError(
                        f"{self.kind} {name!r}: {file}, line {node.lineno}: the value of {constant} must be a literal, "
                        f"for example {default!r}: it is read without importing the module"
                    ) from error
        return default

    def file(self, name: str) -> Path:
        """Returns the path of the Python source file of the entry `name`. The entry is not imported.

        Raises:
            UserError: if there is no such entry.
        """
        return Path(find_spec(self.module_name(name)).origin)

    def subclass(self, name: str, base: type[Class]) -> type[Class]:
        """Imports the module of the entry `name` and returns the class that it defines.

        Args:
            name: name of the entry.
            base: the class of which the module must define one subclass.

        Raises:
            UserError: if there is no such entry, or if its module does not define exactly one subclass of `base`.
        """
        module = self.module(name)
        found = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
        ]
        if len(found) != 1:
            names = ", ".join(value.__name__ for value in found) or "none"
            raise UserError(
                f"{self.kind} {name!r}: {module.__file__} must define one subclass of {base.__name__}, found {names}"
            )
        return found[0]

    def module(self, name: str) -> ModuleType:
        """Imports the module of the entry `name` and returns it.

        Raises:
            UserError: if there is no such entry, or if its module lacks a function that every entry must define.
        """
        module = importlib.import_module(self.module_name(name))
        if lacking := [function for function in self.functions if not callable(getattr(module, function, None))]:
            raise UserError(
                f"{self.kind} {name!r}: {module.__file__} does not define {', '.join(lacking)}. Add what is missing: "
                f"the docstring of {self.package} describes it"
            )
        return module
