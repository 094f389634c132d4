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
    """Imports the module of an augmentation and returns its class, a subclass of Augmentation.

    Args:
        name: name of the augmentation in experiment files: `crop_flip`, `crop_shift`, `cutout`, `idbh`, `rand_augment`,
            or one that another package registers. For `cutout` the class Cutout is returned.

    Raises:
        UserError: if no augmentation of this name is registered, or if its module does not define exactly one subclass
            of Augmentation.
    """
    return registry.subclass(name, Augmentation)


def from_settings(settings: Mapping[str, Any]) -> Augmentation:
    """Makes the augmentation of a training from its settings.

    Args:
        settings: the mapping `training.augmentation` of an experiment whose defaults are filled in: `name`, and the
            options of the augmentation, such as `{"name": "cutout", "cache": "records", "size": 18}`.

    Returns:
        An instance of the augmentation's class with these options, such as `Cutout(size=18)`.

    Raises:
        UserError: if no augmentation of this name is registered.
        pydantic.ValidationError: if an option is unknown or its value is not allowed.
    """
    return get(settings["name"])(**{key: value for key, value in settings.items() if key != "name"})
