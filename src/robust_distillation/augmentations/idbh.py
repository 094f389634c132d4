"""IDBH, improved diversity and balanced hardness (Li and Spratling, "Data Augmentation Alone Can Improve Adversarial
Training", 2023).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import Field

from robust_distillation.augmentations.contract import RandomAugmentation

if TYPE_CHECKING:
    from torch import Tensor

    from robust_distillation.augmentations.colour import Operation
    from robust_distillation.augmentations.draws import Draws
    from robust_distillation.data.info import DatasetInfo

OPERATIONS = ("saturation", "brightness", "contrast", "sharpness", "autocontrast", "equalize", "shear", "rotate")
FACTORS = {"saturation": (0.1, 1.9), "brightness": (0.5, 1.9), "contrast": (0.5, 1.9), "sharpness": (0.1, 1.9)}
ERASING = {"weak": 0.5, "strong": 1.0}  # probability


class Policy(NamedTuple):
    """Numbers that the two policies `color` and `shape` of the augmentation IDBH differ in, from its authors' code.

    Attributes:
        probabilities: probability of each operation in OPERATIONS (saturation, brightness, contrast, sharpness,
            autocontrast, equalize, shear, rotate); they sum to 1.
        shear: least and greatest angle of a shear in radians.
        rotation: greatest angle of a rotation in degrees; the least is 1.
        high: one more than the greatest number of rows and columns that CropShift cuts off, for images of 32 pixels.
        area: least and greatest share of the image's area that random erasing blackens.
    """

    probabilities: tuple[float, ...]
    shear: tuple[float, float]
    rotation: int
    high: int
    area: tuple[float, float]


POLICIES = {
    "color": Policy((0.125,) * 8, (0.05, 0.15), 10, 11, (0.02, 0.33)),
    "shape": Policy((0.08, 0.08, 0.04, 0.08, 0.04, 0.08, 0.3, 0.3), (0.05, 0.35), 30, 9, (0.02, 0.5)),
}


class IDBH(RandomAugmentation):
    """Flip, CropShift, one random operation on colour or shape, and random erasing, in this order.

    As in the authors' code (TreeLLi/DA-Alone-Improves-AT, src/data/idbh.py). Images are mirrored, with probability 1/2,
    only if mirrored images of the dataset keep their class. CropShift cuts random rows and columns off and puts the
    rest at a random place of a black image; there are no crops of the padded image. Random erasing blackens a random
    box.

    Attributes:
        cache: source of a teacher's outputs on augmented images: `records` (computed before the training and stored) or
            `live` (computed during the training).
        strength: `strong`: random erasing blackens a box in every image. `weak`: in an image with probability 1/2.
        policy: `color` is that for CIFAR-10, `shape` that for SVHN. They differ in the probabilities and angles of the
            operations, in CropShift and in the erased area. The released `shape` is `strong`.
        high: one more than the greatest number of rows and columns that CropShift cuts off; at most the side of the
            images. None: the number of the policy for images of 32 pixels, 11 for `color` and 9 for `shape`.
    """

    strength: Literal["weak", "strong"] = "strong"
    policy: Literal["color", "shape"] = "color"
    high: int | None = Field(None, ge=1)

    @property
    def lengths(self) -> dict[str, int]:
        """The option `high`, or the policy's number in its place: no more lines can be cut off than an image has."""
        return {"high": self._high()}

    def _high(self) -> int:
        return self.high or POLICIES[self.policy].high

    def augment(self, images: Tensor, draws: Draws, info: DatasetInfo, padding: int) -> Tensor:
        """Mirrors each image or not, crops and shifts it, applies one operation, and blackens a box.

        Args:
            images: uint8 [B,C,H,W] from 0 to `info.max_value`, on any device; not modified.
            draws: the random numbers of the batch: each call, such as `draws.uniform()`, returns a new number for every
                row, [B].
            info: facts about the dataset, as `data.info` returns them: `shape` (C,H,W), `max_value` (the pixel value
                that stands for 1.0) and `flips` (True if mirrored images keep their class).
            padding: not used: no crops of a padded image are taken.

        Returns:
            uint8 [B,C,H,W] from 0 to `info.max_value`, on the device of `images`.
        """
        from robust_distillation.augmentations import colour, pixels

        images = pixels.random_crop_shift(pixels.random_flip(images, draws, info), draws, 0, self._high())
        images = colour.apply_each(images, self._operations(draws), info)
        return pixels.random_erasing(images, draws, ERASING[self.strength], POLICIES[self.policy].area)

    def _operations(self, draws: Draws) -> list[Operation]:
        import numpy as np

        kinds = np.searchsorted(np.cumsum(POLICIES[self.policy].probabilities)[:-1], draws.uniform(), side="right")
        return list(map(self._operation, kinds, draws.uniform(), draws.coin(), draws.coin()))

    def _operation(self, kind: int, u: float, negative: bool, vertical: bool) -> Operation:
        """Returns the operation of an image.

        Args:
            kind: position in OPERATIONS.
            u: position of the parameter in its range, in [0, 1).
            negative: sign of an angle.
            vertical: axis of a shear.
        """
        import math

        from robust_distillation.augmentations.colour import operation

        policy, name, sign = POLICIES[self.policy], OPERATIONS[kind], -1 if negative else 1
        if name == "rotate":
            return operation(name, sign * (1 + int(u * policy.rotation)))
        if name == "shear":
            low, high = policy.shear
            return operation(f"shear_{'y' if vertical else 'x'}", sign * math.degrees(low + u * (high - low)))
        low, high = FACTORS.get(name, (0.0, 0.0))
        return operation(name, low + u * (high - low))
