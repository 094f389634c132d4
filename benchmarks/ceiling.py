"""Measures a processor's peak FLOP/s and counts a network's FLOPs: together a lower bound of the time of a pass."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import conv2d

SOURCE = Path(__file__).with_name("peak.c")


def peaks() -> dict[str, float] | None:
    """Measures the peak FLOP/s of one core.

    Returns:
        `fp32` and `bf16` to FLOP/s. None if the processor has no AVX-512 with bf16, or there is no C compiler.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            command = ["cc", "-O2", "-mavx512f", "-mavx512bf16", str(SOURCE), "-o", f"{folder}/peak"]
            subprocess.run(command, check=True, capture_output=True)
            printed = subprocess.run([f"{folder}/peak"], check=True, capture_output=True, text=True).stdout
        except (OSError, subprocess.CalledProcessError):
            return None
    fp32, bf16 = (1e9 * float(number) for number in printed.split())
    return {"fp32": fp32, "bf16": bf16}


def flops_inside(model: nn.Module, shape: tuple[int, int, int]) -> int:
    """Counts the FLOPs of one image's forward pass in convolutions and linear layers, without products with padding.

    Args:
        model: the network.
        shape: (channels, height, width) of an image.
    """
    counts: list[int] = []

    def count(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        if isinstance(module, nn.Linear):
            counts.append(2 * module.weight.numel())
            return
        covered = conv2d(  # for each output pixel, the number of input pixels under the kernel
            torch.ones(1, 1, *inputs[0].shape[2:]), torch.ones(1, 1, *module.kernel_size),
            stride=module.stride, padding=module.padding,
        )  # fmt: skip
        counts.append(2 * round(covered.sum().item()) * module.weight.shape[0] * module.weight.shape[1])

    handles = [
        module.register_forward_hook(count) for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        model(torch.zeros(1, *shape))
    for handle in handles:
        handle.remove()
    return sum(counts)
