"""What a processor's peak allows: the fastest that its multiply-adds could compute a network's."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import conv2d

SOURCE = Path(__file__).with_name("peak.c")


def peaks() -> dict[str, float] | None:
    """FLOP/s of one core by precision; None where the processor or a compiler is missing."""
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
    """Of one image's forward pass, without the products with padding, which need not be computed and are not."""
    counts: list[int] = []

    def count(module: nn.Module, inputs: tuple, answer: torch.Tensor) -> None:
        if isinstance(module, nn.Linear):
            counts.append(2 * module.weight.numel())
            return
        seen = conv2d(  # at each place of the image, how many of its pixels lie under the kernel
            torch.ones(1, 1, *inputs[0].shape[2:]), torch.ones(1, 1, *module.kernel_size),
            stride=module.stride, padding=module.padding,
        )  # fmt: skip
        counts.append(2 * round(seen.sum().item()) * module.weight.shape[0] * module.weight.shape[1])

    handles = [
        module.register_forward_hook(count) for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        model(torch.zeros(1, *shape))
    for handle in handles:
        handle.remove()
    return sum(counts)
