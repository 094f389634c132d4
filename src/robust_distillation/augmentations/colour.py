"""Operations on colours and affine maps by torchvision, each image of a batch with its own operation and parameter.

They are computed one image at a time, so an image has the same pixels in every batch. torchvision's operations are for
8-bit images: images of another range are scaled to 0..255 and rounded before, and scaled back and rounded afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from robust_distillation.data.info import DatasetInfo

BYTE = 255
Operation = Callable[[Tensor], Tensor] | None  # maps uint8 [C,H,W] from 0 to 255 to such an image; None: the identity


def apply_each(images: Tensor, operations: Sequence[Operation], info: DatasetInfo) -> Tensor:
    """Applies another operation to each image.

    Args:
        images: uint8 [B,C,H,W] from 0 to info.max_value, on any device.
        operations: the operation of each image; images without one stay as they are, also if the range is scaled.
        info: the pixel range.

    Returns:
        uint8 [B,C,H,W] from 0 to info.max_value, on the device of `images`.
    """
    rows = [row for row, operation in enumerate(operations) if operation]
    if not rows:
        return images
    bytes_ = _scaled(images, BYTE, info.max_value)
    changed = torch.stack([operations[row](bytes_[row]) for row in rows])
    result = images.clone()
    result[rows] = _scaled(changed, info.max_value, BYTE)
    return result


def _scaled(images: Tensor, to: int, of: int) -> Tensor:
    """Maps 0..of to 0..to, rounded."""
    return images if to == of else (images.float() * (to / of)).round().to(torch.uint8)


def operation(name: str, value: float = 0.0) -> Operation:
    """Returns an operation with its parameter.

    Pixels that an affine map takes from outside of the image are 0. No pixels are interpolated.

    Args:
        name: `identity`, `autocontrast` and `equalize` (without a parameter); `saturation`, `brightness`, `contrast`
            and `sharpness` (value: the factor, 1 for the identity); `posterize` (bits that are kept); `solarize` (least
            level, 0 to 255, that is inverted); `rotate` (degrees, counter-clockwise, about the centre); `shear_x` and
            `shear_y` (degrees, about the centre); `corner_shear_x` and `corner_shear_y` (degrees, about the upper left
            corner); `translate_x` and `translate_y` (whole pixels).
        value: the parameter.

    Raises:
        ValueError: there is no such operation.
    """
    from torchvision.transforms.v2 import functional

    affine: dict[str, Any] = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0], "fill": 0}
    match name.split("_"):
        case ["identity"]:
            return None
        case ["autocontrast" | "equalize"]:
            return getattr(functional, name)
        case ["saturation" | "brightness" | "contrast" | "sharpness"]:
            return partial(getattr(functional, f"adjust_{name}"), **{f"{name}_factor": value})
        case ["posterize"]:
            return partial(functional.posterize, bits=int(value))
        case ["solarize"]:
            return partial(functional.solarize, threshold=value)
        case ["rotate"]:
            return partial(functional.rotate, angle=value, fill=0)
        case [*corner, "shear", axis]:
            affine["shear"] = [value, 0.0] if axis == "x" else [0.0, value]
            return partial(functional.affine, **affine, center=[0, 0] if corner else None)
        case ["translate", axis]:
            affine["translate"] = [int(value), 0] if axis == "x" else [0, int(value)]
            return partial(functional.affine, **affine)
    raise ValueError(f"there is no operation {name!r}")
