"""Names to modules: one file in a package is one entry. Nothing is imported until it is asked for, so that a params
file can be checked in milliseconds, and the code fingerprint follows only the module that a run names."""

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
    """The modules of `package`, less the shared ones named in `besides`, plus those that other distributions register
    under the entry point group of the same name (`my-method = my_package.my_module`)."""

    def __init__(self, what: str, package: str, besides: tuple[str, ...] = ()):
        self.what = what
        self.package = package
        self.besides = set(besides)

    @cached_property
    def modules(self) -> dict[str, str]:
        """Entry name to dotted module name."""
        folder = Path(find_spec(self.package).origin).parent
        own = {path.stem for path in folder.glob("*.py")} - self.besides - {"__init__"}
        found = {name: f"{self.package}.{name}" for name in own}
        for entry in entry_points(group=self.package):
            if entry.name in found:
                raise UserError(
                    f"{self.what} {entry.name!r} is registered twice: by {entry.value} and by {found[entry.name]}"
                )
            found[entry.name] = entry.value
        return dict(sorted(found.items()))

    def names(self) -> tuple[str, ...]:
        return tuple(self.modules)

    def module_name(self, name: str) -> str:
        """Raises UserError where nothing is registered under `name`."""
        if name not in self.modules:
            raise UserError(unknown(self.what, name, self.modules))
        return self.modules[name]

    def constant(self, name: str, constant: str, default: Any) -> Any:
        """The literal value of a constant at the top of an entry's file, read without importing it (and torch)."""
        source = Path(find_spec(self.module_name(name)).origin).read_text(encoding="utf-8")
        for node in ast.parse(source).body:
            if isinstance(node, ast.Assign) and [getattr(target, "id", None) for target in node.targets] == [constant]:
                return ast.literal_eval(node.value)
        return default

    def module(self, name: str) -> ModuleType:
        return importlib.import_module(self.module_name(name))
