"""How a network computes: the layout of its tensors, in which precision which passes run, and compiled or not.

A pass trains the weights, or it borrows them: an attack asks for the gradient in the image only, a look for `best` for
none. Borrowed weights ask for no gradient themselves (see `models.frozen`), which is how the two are told apart.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor, nn

from robust_distillation.models.checkpoint import load_model

EXACT = "exact"
LOW = {"bf16-inner": ("borrowed",), "bf16": ("borrowed", "trained")}  # which passes run in bfloat16
# From so many FLOPs on, a training pays for its compiler, which works for a minute or two. On a GPU: not measured.
PAYS = {"cpu": 1e14, "cuda": 1e17}
GRAPHS = 64  # of one network: a graph for each of trained, borrowed and asked, and each size of batch


def prepared(model: nn.Module, precision: str, *, trained: bool = False, compiled: bool = False) -> nn.Module:
    """The model itself, whose features are from here on computed as `precision` says.

    `exact` leaves all as it is: fp32, NCHW, eager. All others lay tensors out channels-last. Only a network that is
    `trained` ever runs in bfloat16, by autocast: weights, sums of batch norm, logits and losses stay in fp32, and so
    does whatever a teacher answers or an evaluation decides. compiled: by torch.compile.
    """
    if precision == EXACT:
        return model
    model.to(memory_format=torch.channels_last)
    features, low = model.features, LOW.get(precision, ()) if trained else ()
    if compiled:
        torch._dynamo.config.recompile_limit = GRAPHS
        features = torch.compile(features, dynamic=False)  # a ragged last batch has a graph of its own

    def run(x: Tensor) -> Tensor:
        kind = "trained" if any(parameter.requires_grad for parameter in model.parameters()) else "borrowed"
        with torch.autocast(x.device.type, torch.bfloat16, enabled=kind in low):
            found = features(x.contiguous(memory_format=torch.channels_last))
        return found.float()

    model.features = run
    return model


def loaded(path: str | Path, precision: str, device: torch.device) -> nn.Module:
    """A checkpoint's model, to ask and to attack."""
    return prepared(load_model(path).to(device), precision)


def eager() -> AbstractContextManager[None]:
    """In here what is compiled computes as if it were not."""
    return torch.compiler.set_stance("force_eager")


def pays(flops: float, device: torch.device) -> bool:
    """Whether compiling a training of so many FLOPs takes less than it saves."""
    return flops >= PAYS[device.type]
