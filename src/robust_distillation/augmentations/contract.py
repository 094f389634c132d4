"""The contract between an augmentation and what uses its views: the training, and the cache of teachers' outputs.

An augmentation is a class with its options as fields. It says which views a training has. A view is a pure function of
the image, its position and the number of the view, so any step can be repeated and the teacher's output on a view can
be cached.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from robust_distillation.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from robust_distillation.augmentations.draws import Draws
    from robust_distillation.data.info import DatasetInfo
    from robust_distillation.data.views import Views


class Augmentation(Settings):
    """An augmentation with its options. Subclasses define the options as fields with defaults."""

    @property
    def enumerable(self) -> bool:
        """True if the views of an image are finitely many and the same in every training: one table holds a teacher's
        outputs on all of them.
        """
        return True

    @property
    def asks_live(self) -> bool:
        """True if the teachers' networks compute the outputs on clean views during the training, without a cache."""
        return False

    def options(self) -> dict[str, Any]:
        """Returns the options on which the pixels of a view depend, as JSON values."""
        return self.model_dump(exclude={"cache"})

    @abstractmethod
    def views(self, info: DatasetInfo, padding: int, seed: int, epochs: int) -> Views:
        """Returns the views of the training images.

        Args:
            info: image shape, pixel range and flips of the dataset.
            padding: zero padding of the random crops, in pixels, at least 0.
            seed: seed of the training; without effect if the augmentation is enumerable.
            epochs: number of epochs of the training; without effect if the augmentation is enumerable.
        """

    def problem(self, shape: tuple[int, int, int]) -> str | None:
        """Returns what is wrong with the options for images of `shape` (C, H, W), as `KEY: message`; None: nothing."""
        return None


class RandomAugmentation(Augmentation):
    """An augmentation whose views are drawn anew in every epoch of every training.

    Attributes:
        cache: source of a teacher's outputs on clean views. `records`: they are computed before the training and stored
            for each epoch of each seed. `live`: the network computes them during the training.
    """

    cache: Literal["records", "live"] = "records"

    @property
    def enumerable(self) -> bool:
        """False: view v of an image is that of epoch v + 1 of one training."""
        return False

    @property
    def asks_live(self) -> bool:
        """True if `cache` is `live`."""
        return self.cache == "live"

    def views(self, info: DatasetInfo, padding: int, seed: int, epochs: int) -> Views:
        """Returns one view of each image for each epoch.

        Args:
            info: image shape, pixel range and flips of the dataset.
            padding: zero padding of the random crops, in pixels, at least 0.
            seed: seed of the training.
            epochs: number of epochs of the training.
        """
        from robust_distillation.augmentations.random_views import RandomViews

        key = {"padding": padding, "flips": info.flips, "augmentation": type(self).__name__, "options": self.options()}
        return RandomViews(partial(self.augment, info=info, padding=padding), key, seed, epochs)

    @abstractmethod
    def augment(self, images: Tensor, draws: Draws, info: DatasetInfo, padding: int) -> Tensor:
        """Augments a batch.

        Every call of `draws` returns a number for each row. Which calls are made must not depend on the rows, and a row
        of the result must depend on this row alone: so an image has the same view in every batch.

        Args:
            images: uint8 [B,C,H,W] from 0 to info.max_value, on any device; not modified.
            draws: the random numbers.
            info: image shape, pixel range and flips of the dataset.
            padding: zero padding of the random crops, in pixels, at least 0.

        Returns:
            uint8 [B,C,H,W] from 0 to info.max_value, on the device of `images`.
        """
