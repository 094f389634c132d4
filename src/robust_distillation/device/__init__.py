"""Select a device, move tensors to it, and compute with less memory than it was asked for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robust_distillation.device import gpus
from robust_distillation.errors import UserError, ran_out
from robust_distillation.settings import Compute


def select_device(compute: Compute) -> torch.device:
    """Select the device that the settings name, set torch's threads, and make torch deterministic.

    `auto` is a GPU with fewer than `jobs_per_gpu` jobs, or the CPU where there is no GPU.

    Raises:
        UserError: the settings name a GPU that torch does not see.
    """
    torch.set_num_threads(compute.threads)
    name = compute.device
    if name == "auto":
        name = "cpu"
        if torch.cuda.is_available():
            ids = [str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())]
            name = f"cuda:{gpus.take(ids, compute.jobs_per_gpu)}"
    if name != "cpu" and not torch.cuda.is_available():
        raise UserError(f"compute.device: {name} is asked for, but torch sees no GPU here")
    if (number := torch.device(name).index) is not None:
        if number >= (count := torch.cuda.device_count()):
            raise UserError(f"compute.device: {name} is asked for, but torch sees {count} GPUs here, from cuda:0 on")
        torch.cuda.set_device(name)  # what names no device, such as pinned memory, belongs to it as well
    # What `precision: exact` promises: no convolution or product in TF32.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    if name != "cpu" or compute.threads > 1:
        # One CPU thread repeats itself anyway, and this call costs 2 s of imports.
        torch.use_deterministic_algorithms(True)
    return torch.device(name)


def split_on_oom(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """function(x), or of its halves put together where memory does not suffice, and so on down to one image. Only for
    functions of which an image's result does not depend on the others."""
    try:
        return function(x)
    except (RuntimeError, MemoryError) as error:
        if len(x) < 2 or not ran_out(error):
            raise
    # Out of the except clause: the error holds on to the tensors of what failed.
    return torch.cat([split_on_oom(function, half) for half in x.tensor_split(2)])


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on a device, without waiting for what that still has to do: to a GPU, only pinned memory goes so."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)
