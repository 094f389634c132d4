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
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from robust_distillation.registry import Registry

__all__ = ["Argument", "arguments", "names", "registry"]

LARGEST = 100_000  # limit of width, depth, image size and classes that a checkpoint from elsewhere may ask for

registry = Registry(
    "architecture", __name__, exclude=("checkpoint", "flops", "frozen", "normalised", "output", "precision", "weights")
)
names = registry.names


@dataclass(frozen=True)
class Argument:
    """A keyword argument of an architecture's `build`.

    Attributes:
        type: name of the type of the default value, for example "int".
        choices: allowed values; empty if every value of the type is allowed.
        default: value that is used if an experiment file gives none.
    """

    type: str
    choices: tuple
    default: Any


def arguments(name: str) -> dict[str, Argument]:
    """Reads the keyword arguments of an architecture from the source of its `build`.

    The module is not imported, because that would import torch, and checking an experiment file must be fast.

    Returns:
        The arguments by name, in the order of the signature.

    Raises:
        UserError: if there is no architecture `name`.
    """
    source = Path(find_spec(registry.module_name(name)).origin).read_text(encoding="utf-8")
    [build] = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == "build"]
    by_name = {}
    for argument, default in zip(build.args.kwonlyargs, build.args.kw_defaults, strict=True):
        kind, value = argument.annotation, ast.literal_eval(default)
        choices = ast.literal_eval(kind.slice) if isinstance(kind, ast.Subscript) else ()
        by_name[argument.arg] = Argument(type(value).__name__, choices, value)
    return by_name
