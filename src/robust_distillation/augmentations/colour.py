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
    """Applies an operation to each image of a batch, which may be another one for every image.

    Operations work on pixels from 0 to 255. If `info.max_value` is another number, an image is scaled to that range
    before its operation and back after it, with rounding.

    Args:
        images: uint8 [B,C,H,W] from 0 to `info.max_value`, on any device; not modified.
        operations: B operations, as `operation` returns them: functions from uint8 [C,H,W] to uint8 [C,H,W]. None
            stands for the identity: that image stays exactly as it is.
        info: facts about the dataset, as `data.info` returns them; only `max_value` is used, the pixel value that
            stands for 1.0.

    Returns:
        uint8 [B,C,H,W] from 0 to `info.max_value`, on the device of `images`. It is `images` if all operations are
        None.
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
    """Returns one of torchvision's image operations with its parameter filled in.

    Pixels that an affine map takes from outside of the image are 0. No pixels are interpolated: the nearest one is
    taken.

    Args:
        name: name of the operation. Its parameter `value` is in parentheses. `identity`, `autocontrast`, `equalize`
            (none). `saturation`, `brightness`, `contrast`, `sharpness` (factor, 1 for the identity). `posterize`
            (number of bits that are kept). `solarize` (least level, 0 to 255, that is inverted). `rotate` (degrees,
            counter-clockwise, about the centre). `shear_x`, `shear_y` (degrees, about the centre). `corner_shear_x`,
            `corner_shear_y` (degrees, about the upper left corner). `translate_x`, `translate_y` (pixels; fractions are
            cut off).
        value: the parameter of the operation.

    Returns:
        A function that maps an image, uint8 [C,H,W] from 0 to 255, to a new image of the same form. None for
        `identity`.

    Raises:
        ValueError: if there is no operation of this name.
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
