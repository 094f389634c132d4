"""The registry of the augmentations: one file each, named as under `training.augmentation` of an experiment file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robust_distillation.augmentations.contract import Augmentation, RandomAugmentation
from robust_distillation.registry import Registry

__all__ = ["Augmentation", "RandomAugmentation", "from_settings", "get", "names", "registry"]

SHARED = ("colour", "contract", "draws", "pixels", "random_views")
registry = Registry("augmentation", __name__, exclude=SHARED)
names = registry.names


def get(name: str) -> type[Augmentation]:
    """Returns the class of the augmentation `name`.

    Raises:
        UserError: no augmentation of this name is registered, or its module does not define exactly one subclass of
            Augmentation.
    """
    return registry.subclass(name, Augmentation)


def from_settings(settings: Mapping[str, Any]) -> Augmentation:
    """Returns the augmentation of a training.

    Args:
        settings: `training.augmentation` after the experiment file was resolved: `name`, and the options by name.
    """
    return get(settings["name"])(**{key: value for key, value in settings.items() if key != "name"})
