"""Resizing of image batches, with the pixels of torchvision's antialiased bilinear resize."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

BATCH = 500  # images resized in one call


def resize(images: np.ndarray | torch.Tensor, size: int | None) -> torch.Tensor:
    """Resizes images to `size` x `size` pixels by antialiased bilinear interpolation.

    The pixels equal those of torchvision.transforms.v2.functional.resize with antialias. torchvision is not imported
    because its import would cost every job more than a second.

    Args:
        images: uint8 [N,C,H,W], a torch tensor or NumPy array.
        size: side in pixels, or None to keep the images as they are.

    Returns:
        Torch tensor, uint8 [N,C,size,size]. Without a change of size it shares the memory of `images`.
    """
    import torch
    from torch.nn.functional import interpolate

    images = torch.as_tensor(images)
    if size is None or images.shape[-2:] == (size, size):
        return images
    return torch.cat(
        [
            interpolate(part, size=[size, size], mode="bilinear", align_corners=False, antialias=True)
            for part in images.split(BATCH)
        ]
    )
