"""Names and options of the optimisers in torch.optim, read from its source: checking an experiment file must not import
torch, which takes seconds."""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

REFUSED = {
    "LBFGS": "its step evaluates the loss several times through a closure",
    "SparseAdam": "it takes sparse gradients only",
    "Muon": "it takes matrices only, and a network has other parameters too",
}
BASE = "Optimizer"
# Set by other keys of the training, or no matter of an experiment: how torch computes, and the sign of the update.
RESERVED = ("lr", "weight_decay", "foreach", "fused", "capturable", "differentiable", "maximize")


@cache
def _modules() -> dict[str, str]:
    """Class name -> file in the folder of torch.optim, of all optimisers."""
    tree = ast.parse((_folder() / "__init__.py").read_text(encoding="utf-8"))
    return {
        alias.name: node.module.rpartition(".")[2]
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name[:1].isupper() and alias.name != BASE
    }


def _folder() -> Path:
    return Path(find_spec("torch").origin).parent / "optim"


def names() -> tuple[str, ...]:
    """Returns the class names of the optimisers in torch.optim that an experiment may choose, sorted, such as "AdamW"
    and "SGD".

    LBFGS, SparseAdam and Muon (the constant REFUSED) are left out. The source of torch is read; torch is not imported,
    since that would take seconds.
    """
    return tuple(sorted(set(_modules()) - set(REFUSED)))


@cache
def arguments(name: str) -> dict[str, Any]:
    """Returns the arguments of an optimiser in torch.optim that have a default, with their defaults.

    The arguments that an experiment must not set (constant RESERVED, such as `lr`) are included.

    Args:
        name: class name, one of `names()`, such as "AdamW".

    Returns:
        Argument to default, such as {"lr": 0.001, "betas": (0.9, 0.999), ...}.

    Raises:
        KeyError: if torch.optim has no optimiser of this name.
    """
    tree = ast.parse((_folder() / f"{_modules()[name]}.py").read_text(encoding="utf-8"))
    [init] = (
        member
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == name
        for member in node.body
        if isinstance(member, ast.FunctionDef) and member.name == "__init__"
    )
    arguments = init.args
    pairs = [*zip(arguments.args[len(arguments.args) - len(arguments.defaults) :], arguments.defaults, strict=True)]
    pairs += [*zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return {argument.arg: ast.literal_eval(default) for argument, default in pairs}


def options(name: str) -> dict[str, Any]:
    """Returns the options of an optimiser in torch.optim that an experiment may set, with torch's defaults.

    Args:
        name: class name, one of `names()`, such as "AdamW".

    Returns:
        Option to default, such as {"betas": (0.9, 0.999), "eps": 1e-08, "amsgrad": False}. Learning rate, weight decay
        and the arguments that choose how torch computes are left out. For SGD, `momentum` is included.
    """
    return {key: default for key, default in arguments(name).items() if key not in RESERVED}


def fits(value: Any, default: Any) -> bool:
    """Returns whether a value in an experiment file has the form of the default of an optimiser's option.

    Args:
        value: the value to check, of any type.
        default: torch's default of the option, from `options`. A tuple asks for a list or tuple of the same length
            whose items have the form of its items; a bool for a bool; a number for an int or a float; None for None or
            a number.
    """
    if isinstance(default, tuple):
        return (
            isinstance(value, list | tuple)
            and len(value) == len(default)
            and all(fits(one, other) for one, other in zip(value, default, strict=True))
        )
    if isinstance(default, bool):
        return isinstance(value, bool)
    if default is None:
        return value is None or fits(value, 0.0)
    return isinstance(value, int | float) and not isinstance(value, bool)
