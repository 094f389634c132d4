"""Network architectures: one module for each family, named by its file name.

A module of a family defines `build(shape, classes, *, ...)`, which returns an nn.Module with freshly drawn weights.
Each keyword argument of `build` needs a literal default value. Its type is taken from that default, its allowed values
from a Literal annotation. The nn.Module maps images [N,C,H,W] in [0,1] to logits [N,K] and has, besides `forward`:

- `features(x)`, which returns the penultimate features [N,D],
- `classifier`, the linear layer that maps these features to the logits,
- optionally `foldable = True`: torch.fx can trace the network, each layer is used once and nothing is random, so that
  batch norm may be folded into the convolutions for inference (see `models.precision`).
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

from robust_distillation.errors import UserError
from robust_distillation.registry import Registry

__all__ = ["Argument", "arguments", "names", "registry"]

LARGEST = 100_000  # limit of width, depth, image size and classes that a checkpoint from elsewhere may ask for

SHARED = ("checkpoint", "flops", "frozen", "normalised", "output", "precision", "weights")
registry = Registry("architecture", __name__, exclude=SHARED, functions=("build",))
names = registry.names


@dataclass(frozen=True)
class Argument:
    """A keyword argument of the `build` function of an architecture's module, such as `depth` of "resnet".

    `models.arguments` returns these objects by the name of the argument, so that an experiment file can be checked
    against them without importing torch.

    Attributes:
        type: name of the type of the default value, for example "int".
        choices: allowed values, from the Literal annotation, for example (18, 34, 50); empty if every value of the type
            is allowed.
        default: value that is used if an experiment file does not set the argument.
    """

    type: str
    choices: tuple
    default: Any


def arguments(name: str) -> dict[str, Argument]:
    """Reads the keyword arguments of an architecture from the source of its `build` function.

    The module is not imported: that would import torch, which takes seconds, and checking an experiment file must be
    fast.

    Args:
        name: name of a registered architecture, for example "resnet".

    Returns:
        Name of each argument to its type, allowed values and default, in the order of the signature. For "resnet":
        `{"depth": Argument("int", (18, 34, 50), 18), "width": Argument("int", (), 64)}`.

    Raises:
        UserError: there is no such architecture, its file defines no `build` with exactly two positional arguments
            (`shape` and `classes`), or a keyword argument has no literal default value.
    """
    file = registry.file(name)
    body = ast.parse(file.read_text(encoding="utf-8")).body
    build = next((node for node in body if isinstance(node, ast.FunctionDef) and node.name == "build"), None)
    if build is None or len(build.args.args) != 2:
        wrong = "has no function build" if build is None else f"(line {build.lineno}) gives build other arguments"
        raise UserError(f"architecture {name!r}: {file} {wrong}. Define build(shape, classes, *, ...)")
    by_name = {}
    for argument, default in zip(build.args.kwonlyargs, build.args.kw_defaults, strict=True):
        try:
            kind, value = argument.annotation, ast.literal_eval(default)
        except ValueError as error:
            raise UserError(
                f"architecture {name!r}: {file}, line {argument.lineno}: the argument {argument.arg} of build has no "
                "literal default value. Give it one, for example 16"
            ) from error
        choices = ast.literal_eval(kind.slice) if isinstance(kind, ast.Subscript) else ()
        by_name[argument.arg] = Argument(type(value).__name__, choices, value)
    return by_name
