"""What can be done with less memory than was asked for, and how tensors get to a device's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robust_distillation.errors import ran_out


def in_halves(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """function(x), or of its halves put together where memory does not suffice, and so on down to one image. Only for
    functions of which an image's result does not depend on the others."""
    try:
        return function(x)
    except (RuntimeError, MemoryError) as error:
        if len(x) < 2 or not ran_out(error):
            raise
    # Out of the except clause: the error holds on to the tensors of what failed.
    return torch.cat([in_halves(function, half) for half in x.tensor_split(2)])


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on a device, without waiting for what that still has to do: to a GPU, only pinned memory goes so."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)
