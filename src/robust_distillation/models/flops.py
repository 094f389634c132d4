"""Computing cost and size of an architecture, without its weights.

Models are built and run on torch's meta device, which computes shapes only and allocates no memory.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from robust_distillation.models.checkpoint import build_model


def forward_flops(architecture: dict[str, Any], shape: tuple[int, int, int], classes: int) -> int:
    """Counts the floating-point operations of the forward pass of one image. Nothing is computed: the model has no
    weights.

    A multiply-add of a convolution or a linear layer counts as 2. Biases, normalisation, activations and pooling count
    as nothing.

    Args:
        architecture: name of a registered architecture and its arguments, for example `{"name": "resnet", "depth":
            18}`.
        shape: (C, H, W) of the image.
        classes: number of classes.

    Returns:
        The number of operations, about 1.1e9 for ResNet-18 on 32x32 images.

    Raises:
        UserError: the architecture is unknown or does not allow an argument.
    """
    counts: list[int] = []

    def count(module: nn.Module, _: tuple, output: Tensor) -> None:
        # A weight is [outputs, inputs, ...], and each output value is a sum over the weight's axes after the first.
        counts.append(2 * output.numel() * prod(module.weight.shape[1:]))

    model = _meta_model(architecture, shape, classes)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        model(torch.empty(1, *shape, device="meta"))
    return sum(counts)


def parameter_bytes(architecture: dict[str, Any], shape: tuple[int, int, int], classes: int) -> int:
    """Counts the bytes of all parameters and buffers of a model: the size of a checkpoint without its header.

    Args:
        architecture: name of a registered architecture and its arguments, for example `{"name": "resnet", "depth":
            18}`.
        shape: (C, H, W) of the images.
        classes: number of classes.

    Returns:
        The number of bytes, an int.

    Raises:
        UserError: the architecture is unknown or does not allow an argument.
    """
    state = _meta_model(architecture, shape, classes).state_dict()
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())


def feature_width(architecture: dict[str, Any], shape: tuple[int, int, int], classes: int) -> int:
    """Returns the width D of an architecture's penultimate features [N,D], the input of its last linear layer.

    Args:
        architecture: name of a registered architecture and its arguments, for example `{"name": "resnet", "depth":
            18}`.
        shape: (C, H, W) of the images.
        classes: number of classes.

    Raises:
        UserError: the architecture is unknown or does not allow an argument.
    """
    return _meta_model(architecture, shape, classes).classifier.in_features


def _meta_model(architecture: dict[str, Any], shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Builds the model on the meta device, in eval mode."""
    with torch.device("meta"):
        return build_model(architecture, shape, classes).eval()
