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
    """Base class of all augmentations. An instance is an augmentation with its options.

    A subclass defines its options as fields with defaults; they are keyword arguments of the class. It must define
    `views`. A view is what the augmentation makes of a training image, named by a number.
    """

    @property
    def enumerable(self) -> bool:
        """True if the views of an image are finitely many and the same in every training.

        A view is what the augmentation makes of an image. One table then holds a teacher's outputs on all views.
        """
        return True

    @property
    def asks_live(self) -> bool:
        """True if the teachers' networks compute their outputs on the augmented images during the training.

        False if these outputs are read from files that are computed before the training.
        """
        return False

    def options(self) -> dict[str, Any]:
        """Returns the options on which the pixels of a view depend, as a dict of JSON values, such as {"size": 18}.

        A view is what the augmentation makes of an image. The option `cache` is left out.
        """
        return self.model_dump(exclude={"cache"})

    @abstractmethod
    def views(self, info: DatasetInfo, padding: int, seed: int, epochs: int) -> Views:
        """Returns the object that makes the views of the training images.

        A view is what an augmentation makes of a training image, named by a number.

        Args:
            info: facts about the dataset, as `data.info` returns them: `shape` (C,H,W), `max_value` (the pixel value
                that stands for 1.0) and `flips` (True if mirrored images keep their class).
            padding: width in pixels of the zero padding from which random crops are taken, `dataset.padding`; at least
                0.
            seed: seed of the training; without effect if `enumerable` is True.
            epochs: number of epochs of the training; without effect if `enumerable` is True.

        Returns:
            A `data.views.Views`: `views.apply(images, ids, views)` returns views of a batch of images,
            `views.epoch(seed, epoch, samples)` the number of the view of each image in an epoch, and `len(views)` the
            number of views of an image.
        """

    @property
    def lengths(self) -> dict[str, int]:
        """Options that are lengths in pixels and must not be larger than the side of the images, such as {"size": 18}.

        Empty unless a subclass says otherwise.
        """
        return {}

    def problem(self, shape: tuple[int, int, int]) -> str | None:
        """Returns the message about the first of `lengths` that is larger than the shorter side of the images.

        Args:
            shape: (C, H, W) of the images.

        Returns:
            A text KEY: MESSAGE, such as "size: 18 is more than the 8 pixels of a side of the images". None if all
            lengths fit.
        """
        side = min(shape[1:])
        larger = (f"{key}: {length} is more than the {side}" for key, length in self.lengths.items() if length > side)
        return next((f"{text} pixels of a side of the images" for text in larger), None)


class RandomAugmentation(Augmentation):
    """Base class of augmentations that draw new random numbers for every image in every epoch of every training.

    A subclass must define `augment`.

    Attributes:
        cache: source of a teacher's outputs on augmented images. `records`: they are computed before the training and
            stored in files, for each epoch of each seed. `live`: the teacher's network computes them during the
            training.
    """

    cache: Literal["records", "live"] = "records"

    @property
    def enumerable(self) -> bool:
        """False: the augmented image differs in every epoch and with every seed of a training."""
        return False

    @property
    def asks_live(self) -> bool:
        """True if the option `cache` is `live`: the teachers' networks run during the training."""
        return self.cache == "live"

    def views(self, info: DatasetInfo, padding: int, seed: int, epochs: int) -> Views:
        """Returns the object that makes one view of each training image for each epoch.

        A view is what the augmentation makes of an image. View v of an image is the one of epoch v + 1.

        Args:
            info: facts about the dataset, as `data.info` returns them: `shape` (C,H,W), `max_value` (the pixel value
                that stands for 1.0) and `flips` (True if mirrored images keep their class).
            padding: width in pixels of the zero padding from which random crops are taken, `dataset.padding`; at least
                0.
            seed: seed of the training, from which the random numbers of `augment` are derived.
            epochs: number of epochs of the training.

        Returns:
            A RandomViews: `views.apply(images, ids, views)` returns views of a batch of images, `views.epoch(seed,
            epoch, samples)` the number of the view of each image in an epoch, and `len(views)` the number of views of
            an image.
        """
        from robust_distillation.augmentations.random_views import RandomViews

        key = {"padding": padding, "flips": info.flips, "augmentation": type(self).__name__, "options": self.options()}
        return RandomViews(partial(self.augment, info=info, padding=padding), key, seed, epochs)

    @abstractmethod
    def augment(self, images: Tensor, draws: Draws, info: DatasetInfo, padding: int) -> Tensor:
        """Augments a batch of images.

        Rules for subclasses. Which calls of `draws` are made must not depend on the rows of the batch. A row of the
        result must depend on the same row of `images` and of the random numbers alone. Then an image is augmented
        equally in every batch.

        Args:
            images: uint8 [B,C,H,W] from 0 to `info.max_value`, on any device; not modified.
            draws: the random numbers of the batch: each call, such as `draws.uniform()`, returns a new number for every
                row, [B].
            info: facts about the dataset, as `data.info` returns them: `shape` (C,H,W), `max_value` (the pixel value
                that stands for 1.0) and `flips` (True if mirrored images keep their class).
            padding: width in pixels of the zero padding from which random crops are taken; at least 0.

        Returns:
            uint8 [B,C,H,W] from 0 to `info.max_value`, on the device of `images`.
        """
