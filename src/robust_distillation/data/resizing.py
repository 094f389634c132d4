"""Images of another size: antialiased bilinear, on whole grey levels."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

AT_ONCE = 500  # images


def resized(images: np.ndarray | torch.Tensor, size: int | None) -> torch.Tensor:
    """uint8 [N,C,H,W] to uint8 [N,C,size,size]; as they are where `size` is None.

    The pixels of torchvision.transforms.v2.functional.resize with antialias, called here without torchvision, whose
    import would cost every job more than a second.
    """
    import torch
    from torch.nn.functional import interpolate

    images = torch.as_tensor(images)
    if size is None or images.shape[-2:] == (size, size):
        return images
    return torch.cat(
        [
            interpolate(part, size=[size, size], mode="bilinear", align_corners=False, antialias=True)
            for part in images.split(AT_ONCE)
        ]
    )
