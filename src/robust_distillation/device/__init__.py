"""Selection of the device, transfer of tensors to it, and splitting of batches that are too large for it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robust_distillation.device import gpus
from robust_distillation.errors import UserError, is_out_of_memory
from robust_distillation.settings import Compute


def select_device(compute: Compute) -> torch.device:
    """Selects the device of a job and configures torch for it.

    Sets the number of torch's threads, turns TF32 off and makes torch deterministic, for the whole process.

    With the device "auto" and at least one GPU it waits until a GPU is free. The GPU is reserved by a lock file until
    this process ends.

    Args:
        compute: settings under `compute` in the experiment file, as `experiment.compute`. `device` is "cpu", "cuda"
            (torch's current GPU), "cuda:N" or "auto". "auto" takes a GPU with fewer than `jobs_per_gpu` jobs of this
            user, or the CPU if there is no GPU. `threads` is the number of torch's threads.

    Returns:
        torch.device("cpu") or a CUDA device. A CUDA device with a number is also torch's current device afterwards.

    Raises:
        UserError: if the settings name a GPU that torch does not find.
    """
    torch.set_num_threads(compute.threads)
    name = compute.device
    if name == "auto":
        name = "cpu"
        if torch.cuda.is_available():
            ids = [str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())]
            name = f"cuda:{gpus.acquire(ids, compute.jobs_per_gpu)}"
    if name != "cpu" and not torch.cuda.is_available():
        raise UserError(f"compute.device: {name} is asked for, but torch sees no GPU here")
    if (number := torch.device(name).index) is not None:
        if number >= (count := torch.cuda.device_count()):
            raise UserError(f"compute.device: {name} is asked for, but torch sees {count} GPUs here, from cuda:0 on")
        torch.cuda.set_device(name)  # calls that name no device, such as pinning memory, then use this one
    # `precision: exact` promises float32: no convolution or matrix product in TF32.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    if name != "cpu" or compute.threads > 1:
        # A single CPU thread is deterministic anyway, and this call costs 2 s of imports.
        torch.use_deterministic_algorithms(True)
    return torch.device(name)


def split_on_oom(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Computes `function(x)`. If memory runs out, computes it on halves of the batch, down to single images.

    Args:
        function: maps a tensor [B,...] to a tensor [B,...]. The result of an image must not depend on the other images
            of the batch.
        x: the batch, [B,...].

    Returns:
        The results [B,...] of all images, in the order of `x`.

    Raises:
        RuntimeError: the error of `function`, if memory runs out for a single image or if the error has another cause.
        MemoryError: likewise, if `function` raised it.
    """
    try:
        return function(x)
    except (RuntimeError, MemoryError) as error:
        if len(x) < 2 or not is_out_of_memory(error):
            raise
    # Outside of the except clause, since the error keeps the tensors of the failed call alive.
    return torch.cat([split_on_oom(function, half) for half in x.tensor_split(2)])


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copies a CPU tensor to a device without waiting for the device.

    Args:
        tensor: a tensor on the CPU.
        device: the target. For a GPU the tensor is copied through pinned memory. For the CPU the tensor is not copied.

    Returns:
        The tensor on `device`.
    """
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)
