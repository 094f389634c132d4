"""RandAugment (Cubuk et al., 2020): random operations of one magnitude, then crop and flip."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import Field

from robust_distillation.augmentations.contract import RandomAugmentation

if TYPE_CHECKING:
    from torch import Tensor

    from robust_distillation.augmentations.colour import Operation
    from robust_distillation.augmentations.draws import Draws
    from robust_distillation.data.info import DatasetInfo

BINS = 31  # of the magnitude, 0 to 30
SIGNED = (
    "corner_shear_x", "corner_shear_y", "translate_x", "translate_y", "rotate", "brightness", "saturation", "contrast",
    "sharpness",
)  # fmt: skip
OPERATIONS = ("identity", *SIGNED, "posterize", "solarize", "autocontrast", "equalize")


class RandAugment(RandomAugmentation):
    """`num_ops` operations, each drawn from the 14 of torchvision's RandAugment, then crop and flip.

    The operations are drawn with equal probability; several of an image may be the same. Operations and magnitudes are
    those of `torchvision.transforms.v2.RandAugment` with 31 bins. Moved pixels are not interpolated, and pixels from
    outside of the image are black.

    Attributes:
        cache: source of a teacher's outputs on augmented images: `records` (computed before the training and stored) or
            `live` (computed during the training).
        num_ops: number of operations on each image, 1 to 10.
        magnitude: strength of the operations, 0 to 30. The defaults are those of the released code of "Better Diffusion
            Models Further Improve Adversarial Training" (Wang et al., 2023); torchvision's magnitude is 9.
    """

    num_ops: int = Field(2, ge=1, le=10)
    magnitude: int = Field(14, ge=0, lt=BINS)

    def augment(self, images: Tensor, draws: Draws, info: DatasetInfo, padding: int) -> Tensor:
        """Applies `num_ops` random operations to each image, crops it, and mirrors it or not.

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
        from robust_distillation.augmentations import colour, pixels

        known = {
            (name, negative): self._operation(name, -1 if negative else 1, *images.shape[-2:])
            for name in OPERATIONS
            for negative in (False, True)
        }
        for _ in range(self.num_ops):
            kinds, negative = draws.integers(0, len(OPERATIONS)), draws.coin()
            chosen = [known[OPERATIONS[kind], bool(sign)] for kind, sign in zip(kinds, negative, strict=True)]
            images = colour.apply_each(images, chosen, info)
        return pixels.random_crop_flip(images, draws, info, padding)

    def _operation(self, name: str, sign: int, height: int, width: int) -> Operation:
        """Returns an operation of this magnitude for images of height x width pixels."""
        import torch

        from robust_distillation.augmentations.colour import operation

        def bin_of(first: float, last: float) -> float:
            return float(torch.linspace(first, last, BINS)[self.magnitude])

        match name.split("_"):
            case [*_, "shear", _]:
                value = sign * math.degrees(math.atan(bin_of(0.0, 0.3)))
            case ["translate", axis]:
                value = sign * bin_of(0.0, 150 / 331 * (width if axis == "x" else height))
            case ["rotate"]:
                value = sign * bin_of(0.0, 30.0)
            case ["posterize"]:
                value = 8 - round(self.magnitude / ((BINS - 1) / 4))
            case ["solarize"]:
                value = 255 * bin_of(1.0, 0.0)
            case _:
                value = 1 + sign * bin_of(0.0, 0.9)
        return operation(name, value)
