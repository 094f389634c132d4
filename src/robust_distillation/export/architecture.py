"""Export of an architecture's source code as one file that needs only torch."""

from __future__ import annotations

import ast
import sys
from importlib.util import find_spec
from pathlib import Path

from robust_distillation import models
from robust_distillation.errors import UserError

ALLOWED = {"torch", *sys.stdlib_module_names}  # packages that the file may import
NORMALISED = "robust_distillation.models.normalised"


def standalone_source(architecture: str, normalised: bool) -> str:
    """Returns the source code of an architecture as the text of one Python file that needs only torch.

    The file lets others load exported weights without this package. It defines `build(shape, classes, *, ...)`, which
    returns the network (an nn.Module with random weights) for images of `shape` (C, H, W) and `classes` classes. The
    keyword arguments are those of the architecture, such as `depth`. The source is that of the architecture's module,
    read without importing it.

    Args:
        architecture: name of a registered architecture, for example "resnet".
        normalised: True to append the class `Normalised(model, mean, std)`, which applies a network to (x - mean) /
            std.

    Raises:
        UserError: the architecture is unknown, or its file imports more than torch and the standard library.
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
    body = ast.parse(text).body[2:]  # without the docstring and the __future__ import
    return source + "\n\n" + "\n".join(text.splitlines()[body[0].lineno - 1 :]) + "\n"


def _source(module: str) -> str:
    """Reads the source code of a module without importing it."""
    return Path(find_spec(module).origin).read_text(encoding="utf-8")


def _imported(source: str) -> set[str]:
    """Returns the names of the top-level packages that a source file imports; "." for a relative import."""
    packages = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            packages |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            packages.add("." if node.level else node.module.partition(".")[0])
    return packages
