"""Where a training stands: all that its next step depends on, as bytes and back."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

if TYPE_CHECKING:
    from robust_distillation.training.loop import Trainer

KEY = "progress"
Tensors = dict[str, Tensor]


@dataclass
class Counts:
    """What is not a tensor. Order, views and noise are functions of seed, epoch and step: no generator is among it."""

    epoch: int = 1  # that is trained or looked at
    steps: int = 0  # of it that are done
    best_epoch: int = 0
    best_score: tuple[float, float] = (-1.0, -1.0)
    metrics: list[dict[str, Any]] = field(default_factory=list)  # a line of each epoch that is done


@dataclass
class Progress:
    counts: Counts = field(default_factory=Counts)
    sums: Tensors = field(default_factory=dict)  # of the loss and its terms over the epoch's steps
    best: Tensors | None = None  # weights of the best epoch


def packed(trainer: Trainer, progress: Progress, sums: list[Tensors]) -> bytes:
    """The same progress gives the same bytes. Lines of metrics keep the order of their keys.

    sums: those of every process, by its rank. Each goes on from its own: added up here they would round otherwise.
    """
    groups = {
        "model": trainer.model.state_dict(),
        "method": trainer.state.state_dict() if trainer.state else {},
        "optimizer": _momenta(trainer.optimizer),
        **{f"sums-{rank}": own for rank, own in enumerate(sums)},
        "best": progress.best or {},
    }
    tensors = {
        f"{group}.{name}": tensor.detach().cpu().contiguous()
        for group, named in groups.items()
        for name, tensor in named.items()
    }
    return save(tensors, {KEY: json.dumps({**asdict(progress.counts), "sums": list(progress.sums)})})


def restored(trainer: Trainer, content: bytes) -> Progress:
    """Puts the trainer back to where `packed` found it, and returns its process's progress."""
    length = int.from_bytes(content[:8], "little")
    counts = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][KEY])
    counts["best_score"], summed = tuple(counts["best_score"]), counts.pop("sums")
    groups: dict[str, Tensors] = {}
    for name, tensor in load(content).items():
        group, _, own = name.partition(".")
        groups.setdefault(group, {})[own] = tensor
    trainer.model.load_state_dict(groups["model"])
    if trainer.state:
        trainer.state.load_state_dict(groups.get("method", {}))
    for name, momentum in groups.get("optimizer", {}).items():
        parameter = _parameters(trainer.optimizer)[int(name)]
        trainer.optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(momentum)
    device = next(trainer.model.parameters()).device
    sums = {name: groups[f"sums-{trainer.group.rank}"][name].to(device) for name in summed}
    best = {name: tensor.to(device) for name, tensor in groups.get("best", {}).items()}
    return Progress(Counts(**counts), sums, best or None)


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _momenta(optimizer: torch.optim.Optimizer) -> Tensors:
    """None before the first step."""
    kept = (optimizer.state.get(parameter, {}).get("momentum_buffer") for parameter in _parameters(optimizer))
    return {str(number): momentum for number, momentum in enumerate(kept) if momentum is not None}
