"""What an architecture costs, counted without its weights: models are built and run on torch's meta device, which knows
shapes only."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from robust_distillation.models.checkpoint import build_model


def forward_flops(architecture: dict[str, Any], shape: tuple[int, int, int], classes: int) -> int:
    """Floating-point operations of one image's forward pass: 2 for each multiply-add of convolutions and linear layers,
    nothing for biases, norms, activations and pooling.

    architecture: `{"name": ..., **arguments}`; shape: (C, H, W). Raises UserError for an unknown one.
    """
    counts: list[int] = []

    def count(module: nn.Module, _: tuple, output: Tensor) -> None:
        # Each output value is a sum over the inputs that one output channel sees: a weight is [outputs, inputs, ...].
        counts.append(2 * output.numel() * prod(module.weight.shape[1:]))

    model = _meta_model(architecture, shape, classes)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        model(torch.empty(1, *shape, device="meta"))
    return sum(counts)


def parameter_bytes(architecture: dict[str, Any], shape: tuple[int, int, int], classes: int) -> int:
    """Bytes of all parameters and buffers: a checkpoint's size but for its header."""
    state = _meta_model(architecture, shape, classes).state_dict()
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())


def feature_width(architecture: dict[str, Any], shape: tuple[int, int, int], classes: int) -> int:
    """D of the penultimate features [N,D]."""
    return _meta_model(architecture, shape, classes).classifier.in_features


def _meta_model(architecture: dict[str, Any], shape: tuple[int, int, int], classes: int) -> nn.Module:
    with torch.device("meta"):
        return build_model(architecture, shape, classes).eval()
