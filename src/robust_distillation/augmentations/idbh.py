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
    """A policy of the released code.

    Attributes:
        probabilities: probability of each of OPERATIONS; they sum to 1.
        shear: least and greatest angle of a shear in radians.
        rotation: greatest angle of a rotation in degrees; the least is 1.
        high: upper end (exclusive) of CropShift for images of 32 pixels; the lower end is 0.
        area: least and greatest share of the image that is erased.
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

    As in TreeLLi/DA-Alone-Improves-AT, src/data/idbh.py; flips follow the dataset. There are no crops of the padded
    image.

    Attributes:
        strength: `strong`: every image has a part erased. `weak`: every second one.
        policy: `color` is that for CIFAR-10, `shape` that for SVHN. They differ in the probabilities and angles of the
            operations, in CropShift and in the erased area. The released `shape` is `strong`.
        high: upper end (exclusive) of CropShift, at most the side of the images. None: the policy's for images of 32
            pixels, 11 of `color` and 9 of `shape`.
    """

    strength: Literal["weak", "strong"] = "strong"
    policy: Literal["color", "shape"] = "color"
    high: int | None = Field(None, ge=1)

    def problem(self, shape: tuple[int, int, int]) -> str | None:
        """Returns that CropShift's upper end is too large for the images, as `KEY: message`; None: the options fit.

        Args:
            shape: (C, H, W) of the images.
        """
        side, high = min(shape[1:]), self._high()
        return f"high: {high} is more than the {side} pixels of a side of the images" if high > side else None

    def _high(self) -> int:
        return self.high or POLICIES[self.policy].high

    def augment(self, images: Tensor, draws: Draws, info: DatasetInfo, padding: int) -> Tensor:
        """Augments a batch.

        Args:
            images: uint8 [B,C,H,W] from 0 to info.max_value, on any device; not modified.
            draws: the random numbers.
            info: pixel range and flips of the dataset.
            padding: not used.

        Returns:
            uint8 [B,C,H,W] from 0 to info.max_value, on the device of `images`.
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
