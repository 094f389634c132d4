"""The registry of the methods: one file each, named as in an experiment file. `methods.get("rslad")` is the class
RSLAD.
"""

from __future__ import annotations

from robust_distillation.methods.contract import (
    TEACHER,
    EpochEnd,
    Method,
    Network,
    Official,
    Sizes,
    TeacherCalls,
    Term,
    TrainingStep,
    misclassification,
)
from robust_distillation.registry import Registry

__all__ = [
    "TEACHER",
    "EpochEnd",
    "Method",
    "Network",
    "Official",
    "Sizes",
    "TeacherCalls",
    "Term",
    "TrainingStep",
    "get",
    "misclassification",
    "names",
    "registry",
]

registry = Registry("method", __name__, exclude=("balance", "contract", "contrast", "igdm", "table"))
names = registry.names


def get(name: str) -> type[Method]:
    """Imports the module of a distillation or training method and returns its class, a subclass of Method.

    Args:
        name: name of the method in experiment files, such as "rslad", for which the class RSLAD is returned.

    Raises:
        UserError: no method of this name is registered, or its module does not define exactly one subclass of Method.
    """
    return registry.subclass(name, Method)
