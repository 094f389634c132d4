"""Precision modes of a network: numeric precision, memory layout, folded batch norm, compilation.

A pass of a network either trains the weights or uses them frozen. Frozen weights serve attacks, which need the gradient
of the image only, and validation, which needs none. Which of the two a pass is follows from the weights: in a frozen
network (see `models.frozen`) no parameter has `requires_grad`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from robust_distillation.models.checkpoint import load_model
from robust_distillation.settings import Compute

EXACT = "exact"
TRAIN, INFERENCE, SEARCH = "train", "inference", "search"  # uses of a network, see `configure_precision`
BFLOAT16 = {  # passes that run in bfloat16: with frozen weights, with trained weights, or both
    (TRAIN, "bf16-inner"): ("frozen",),
    (TRAIN, "bf16"): ("frozen", "trained"),
}
# FLOPs of a training above which torch.compile saves more time than its compilation takes, a minute or two.
COMPILE_MIN_FLOPS = {"cpu": 1e14, "cuda": 3e15}
MAX_GRAPHS = 64  # limit of the compiled graphs of a network: one for each kind of pass and each batch size

_evaluating: ContextVar[bool] = ContextVar("_evaluating", default=False)


def configure_precision(
    model: nn.Module, precision: str, use: str = INFERENCE, *, compiled: bool = False, recorded: bool = True
) -> nn.Module:
    """Changes how a model computes its features, in place: numeric precision, memory layout, folded batch norm,
    compilation.

    It replaces the method `features` of the object `model`. With precision "exact" (and a use other than SEARCH)
    nothing changes: float32, NCHW layout, eager. All other modes use the channels_last layout, except for a network on
    a GPU that never runs in bfloat16, where float32 would be slower in that layout. A pass has frozen weights if no
    parameter requires a gradient, as in an attack.

    Args:
        model: network on its final device, with a method `features` (images to penultimate features [N,D]) and a linear
            layer `classifier` (features to logits).
        precision: "exact", "fp32", "bf16-inner" (in training, bfloat16 for passes with frozen weights only) or "bf16"
            (in training, bfloat16 for all passes).
        use: purpose of the network:
            TRAIN ("train"): training. bfloat16 is applied by autocast. Weights, batch norm statistics, logits and
                losses stay in float32.
            INFERENCE ("inference"): inference in float32, whatever `precision` is. The network must not be trained any
                more: unless `precision` is "exact", its batch norm is folded into the convolutions if its attribute
                `foldable` is True.
            SEARCH ("search"): inference in bfloat16, whatever `precision` is, with folded batch norm if `foldable` is
                True. The network may only propose adversarial images, which a float32 network then judges.
        compiled: True if torch.compile compiles the features.
        recorded: True if a compiled network on a GPU replays its training passes as CUDA graphs.

    Returns:
        `model`.
    """
    if precision == EXACT and use != SEARCH:
        return model
    low = ("frozen", "trained") if use == SEARCH else BFLOAT16.get((use, precision), ())
    on_gpu = next(model.parameters()).is_cuda
    layout = torch.channels_last if low or not on_gpu else torch.contiguous_format
    model.to(memory_format=layout)
    features: Callable[[Tensor], Tensor] = model.features
    if use != TRAIN and getattr(model, "foldable", False):
        features = fold_batch_norm(model).to(memory_format=layout)
    passes = {"frozen": features, "trained": features}
    if compiled:
        torch._dynamo.config.recompile_limit = MAX_GRAPHS
        replayed = {"mode": "reduce-overhead"} if recorded and on_gpu else {}
        passes = {  # a smaller last batch gets a graph of its own
            "frozen": torch.compile(features, dynamic=False),  # attacks capture them as CUDA graphs, see `cuda_graph`
            "trained": torch.compile(features, dynamic=False, **replayed),
        }

    def run(x: Tensor) -> Tensor:
        """Computes features [N,D] in float32, in the precision of the pass."""
        kind = "trained" if any(parameter.requires_grad for parameter in model.parameters()) else "frozen"
        with torch.autocast(x.device.type, torch.bfloat16, enabled=kind in low and not _evaluating.get()):
            output = passes[kind](x.contiguous(memory_format=layout))
        return output.float()

    model.features = run
    return model


class _Features(nn.Module):
    """Module that computes the features of a model, which torch.fx can trace."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.features(x)


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """Folds the batch norm layers of a model into the convolutions before them, which makes inference faster.

    Args:
        model: trained network whose attribute `foldable` is True: torch.fx can trace its method `features` (images to
            features [N,D]). It is set to eval mode; its weights are not changed.

    Returns:
        A new module that maps images [N,C,H,W] to the model's features [N,D]. It has weights of its own that require no
        gradient.
    """
    model.eval()
    return fuse(_Features(model)).requires_grad_(False)


def load_for_inference(path: str | Path, precision: str, device: torch.device, use: str = INFERENCE) -> nn.Module:
    """Loads the model of a checkpoint for inference and attacks.

    Args:
        path: the checkpoint, a safetensors file that `save_checkpoint` wrote.
        precision: `compute.precision` of the experiment file: "exact", "fp32", "bf16-inner" or "bf16". For inference
            the last three are the same: float32 with another memory layout and folded batch norm.
        device: device to which the model is moved.
        use: INFERENCE ("inference") for a model whose predictions count; SEARCH ("search") for a model in bfloat16 that
            only proposes adversarial images.

    Returns:
        The model in eval mode. It maps images [N,C,H,W] in [0, 1] to logits [N,K].

    Raises:
        UserError: the checkpoint is missing or damaged.
    """
    return configure_precision(load_model(path).to(device), precision, use)


@contextmanager
def evaluation_precision() -> Iterator[None]:
    """Context manager: within it, networks in training compute in float32 and eagerly, as in the final evaluation.

    It is for the validations of a training, whose accuracies must be those of the final evaluation. Autocast to
    bfloat16 and torch.compile are switched off for networks that `configure_precision` prepared. Compiled networks run
    eagerly because a validation drops the images that an attack has fooled, and compiling a graph for each remaining
    number of images would take too long.
    """
    before = _evaluating.set(True)
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        _evaluating.reset(before)


def should_compile(compute: Compute, flops: float, device: str) -> bool:
    """Decides whether torch.compile is used for a training.

    If `compute.compile` is True or False, it is returned. If it is None, the result is True if `compute.precision` is
    not "exact" and the training is so long that compiling saves time: at least 1e14 operations on a CPU or 3e15 on a
    GPU (the constant COMPILE_MIN_FLOPS).

    Args:
        compute: the section `compute` of the experiment file. Its fields `compile` (True, False or None) and
            `precision` ("exact", "fp32", "bf16-inner" or "bf16") are used.
        flops: floating-point operations of the whole training, for example from `planning.calls.flops`.
        device: type of the device, "cpu" or "cuda".
    """
    if compute.compile is not None:
        return compute.compile
    return compute.precision != EXACT and flops >= COMPILE_MIN_FLOPS[device]
