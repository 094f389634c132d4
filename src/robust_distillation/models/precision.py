"""How a network computes: the layout of its tensors, in which precision which passes run, folded or compiled or not.

A pass trains the weights, or it borrows them: an attack asks for the gradient in the image only, a look for `best` for
none. Borrowed weights ask for no gradient themselves (see `models.frozen`), which is how the two are told apart.
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
TRAIN, ANSWER, SEARCH = "train", "answer", "search"  # what a network is for
LOW = {  # passes that run in bfloat16
    (TRAIN, "bf16-inner"): ("borrowed",),
    (TRAIN, "bf16"): ("borrowed", "trained"),
}
# From so many FLOPs on, a training pays for its compiler, which works for a minute or two.
PAYS = {"cpu": 1e14, "cuda": 3e15}
GRAPHS = 64  # of one network: a graph for each of trained, borrowed and asked, and each size of batch

_looking: ContextVar[bool] = ContextVar("_looking", default=False)


def prepared(
    model: nn.Module, precision: str, use: str = ANSWER, *, compiled: bool = False, recorded: bool = True
) -> nn.Module:
    """The model itself, whose features are from here on computed as `precision` says.

    `exact` leaves all as it is: fp32, NCHW, eager. All others lay tensors out channels-last, but for a network on a GPU
    that never runs in bfloat16: there, fp32 is slower so. A network to `train` runs in bfloat16 where LOW says so, by
    autocast: weights, sums of batch norm, logits and losses stay in fp32. compiled: by torch.compile; recorded: on a
    GPU, passes that train are then replayed as CUDA graphs. One to `answer` stays in fp32, and is not to be trained any
    more: where it is `foldable`, batch norm is folded into the convolutions before it. One to `search` for images that
    others judge is the same in bfloat16, whatever `precision`.
    """
    if precision == EXACT and use != SEARCH:
        return model
    low = ("borrowed", "trained") if use == SEARCH else LOW.get((use, precision), ())
    on_gpu = next(model.parameters()).is_cuda
    layout = torch.channels_last if low or not on_gpu else torch.contiguous_format
    model.to(memory_format=layout)
    features: Callable[[Tensor], Tensor] = model.features
    if use != TRAIN and getattr(model, "foldable", False):
        features = folded(model).to(memory_format=layout)
    passes = {"borrowed": features, "trained": features}
    if compiled:
        torch._dynamo.config.recompile_limit = GRAPHS
        replayed = {"mode": "reduce-overhead"} if recorded and on_gpu else {}
        passes = {  # a ragged last batch has a graph of its own
            "borrowed": torch.compile(features, dynamic=False),  # attacks record them: see `recorded`
            "trained": torch.compile(features, dynamic=False, **replayed),
        }

    def run(x: Tensor) -> Tensor:
        kind = "trained" if any(parameter.requires_grad for parameter in model.parameters()) else "borrowed"
        with torch.autocast(x.device.type, torch.bfloat16, enabled=kind in low and not _looking.get()):
            found = passes[kind](x.contiguous(memory_format=layout))
        return found.float()

    model.features = run
    return model


class _Features(nn.Module):
    """What comes before the classifier, as a module."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.features(x)


def folded(model: nn.Module) -> nn.Module:
    """The features of a trained network that is `foldable`, batch norm folded into the convolution before it where
    there is one."""
    model.eval()
    return fuse(_Features(model)).requires_grad_(False)


def loaded(path: str | Path, precision: str, device: torch.device, use: str = ANSWER) -> nn.Module:
    """A checkpoint's model, to ask and to attack."""
    return prepared(load_model(path).to(device), precision, use)


@contextmanager
def looking() -> Iterator[None]:
    """In here a network that is trained computes as it will when it is evaluated: in fp32. And eagerly, even where it
    is compiled: images that fall drop out of a look, and a graph for each number of them would never pay."""
    before = _looking.set(True)
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        _looking.reset(before)


def compiles(compute: Compute, flops: float, device: str) -> bool:
    """Whether a training of so many FLOPs is compiled on a type of device: if that is asked for or, where it is left
    open, takes less than it saves."""
    if compute.compile is not None:
        return compute.compile
    return compute.precision != EXACT and flops >= PAYS[device]
