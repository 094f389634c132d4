"""Temporary freezing of a model, for attacks and for forward passes of a teacher."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def frozen(model: nn.Module, mode: str = "eval") -> Iterator[nn.Module]:
    """Context manager: sets the mode of a model and freezes it, so that no parameter requires a gradient.

    At the end, also after an exception, the mode of each module and `requires_grad` of each parameter are restored.
    Batch norm statistics are not restored: forward passes in train mode update them.

    Args:
        model: the model, changed in place.
        mode: "eval" or "train". Some released codes attack the student in train mode.

    Yields:
        The model.
    """
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.train(mode == "train")
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield model
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
