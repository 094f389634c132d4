"""The state of a training as bytes and back, in safetensors and JSON, without pickle: all that the next step depends
on.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load, save
from torch import Tensor

if TYPE_CHECKING:
    from robust_distillation.training.trainer import Trainer

KEY = "progress"
Tensors = dict[str, Tensor]


@dataclass
class Counts:
    """Progress of a training in numbers.

    No state of a random generator is needed to resume a training, since order, views and noise depend on the seed, the
    epoch and the number of the optimisation step only.

    Attributes:
        epoch: number of the epoch that is trained or validated, counted from 1; after the training, `epochs` + 1.
        steps: number of optimisation steps of this epoch that are done.
        best_epoch: number of the epoch with the best validation so far; 0 before the first validation.
        best_score: (score, clean validation accuracy) of that epoch; (-1, -1) before the first validation. The score is
            the accuracy under the attack of `training.selection` (`apgd`, `pgd10` or `pgd_trades`), in [0, 1], or the
            value of another metric if `training.selection.by` names one.
        best_averaged: number of weights whose average is the network of the best epoch; 0 if that is the student
            without averaging.
        metrics: the training curves, one dict for each epoch that is done, for example `{"epoch": 1, "learning_rate":
            0.1, "loss": 2.1, "selection_clean": 0.3, "selection_robust": 0.2}`; also the mean of each loss term by
            name.
    """

    epoch: int = 1
    steps: int = 0
    best_epoch: int = 0
    best_score: tuple[float, float] = (-1.0, -1.0)
    best_averaged: int = 0
    metrics: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Progress:
    """Progress of a training in numbers and tensors.

    Attributes:
        counts: epoch, step, training curves, and number and score of the best epoch.
        sums: sums of the loss (key `loss`) and of each loss term, by name, over the optimisation steps of the current
            epoch so far: tensors of no dimensions, for this process only.
        best: state dict of the student (with averaging: of the average) at the best epoch; None before the first
            validation.
    """

    counts: Counts = field(default_factory=Counts)
    sums: Tensors = field(default_factory=dict)
    best: Tensors | None = None


def packed(trainer: Trainer, progress: Progress, sums: list[Tensors]) -> bytes:
    """Serialises the state of a training in the safetensors format. The same state gives the same bytes.

    Args:
        trainer: the student, the method's own modules, and the optimisers.
        progress: epoch, number of optimisation steps, training curves, and the weights of the best epoch so far.
        sums: `Progress.sums` of every process, by rank. Each process continues with its own sums, since adding in
            another order would round differently.

    Returns:
        The bytes that `restored` reads.
    """
    states = {name: optimizer.state_dict() for name, optimizer in trainer.optimizers.items()}
    groups = {
        "student": trainer.student.state_dict(),
        "own": trainer.own.state_dict(),
        "average": trainer.average.state_dict() if trainer.average else {},
        **{f"optimizer-{name}": _tensors(state) for name, state in states.items()},
        **{f"sums-{rank}": own for rank, own in enumerate(sums)},
        "best": progress.best or {},
    }
    tensors = {
        f"{group}.{name}": tensor.detach().cpu().contiguous()
        for group, named in groups.items()
        for name, tensor in named.items()
    }
    optimizers = {name: _without_tensors(state) for name, state in states.items()}
    described = {**asdict(progress.counts), "sums": list(progress.sums), "optimizers": optimizers}
    return save(tensors, {KEY: json.dumps(described)})


def restored(trainer: Trainer, content: bytes) -> Progress:
    """Restores the state of a training from the bytes that `packed` made.

    Args:
        trainer: a new trainer of the same settings. Student, the method's own modules and optimisers are overwritten in
            place.
        content: the bytes that `training.state.packed` returned.

    Returns:
        The progress, with the loss sums of this process. Its tensors are on the device of the student.
    """
    length = int.from_bytes(content[:8], "little")
    counts = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][KEY])
    counts["best_score"], summed = tuple(counts["best_score"]), counts.pop("sums")
    optimizers = counts.pop("optimizers")
    groups: dict[str, Tensors] = {}
    for name, tensor in load(content).items():
        group, _, own = name.partition(".")
        groups.setdefault(group, {})[own] = tensor
    trainer.student.load_state_dict(groups["student"])
    trainer.own.load_state_dict(groups.get("own", {}))
    if trainer.average:
        trainer.average.load_state_dict(groups["average"])
    for name, optimizer in trainer.optimizers.items():
        load_optimizer(optimizer, optimizers[name], groups.get(f"optimizer-{name}", {}))
    device = next(trainer.student.parameters()).device
    sums = {name: groups[f"sums-{trainer.group.rank}"][name].to(device) for name in summed}
    best = {name: tensor.to(device) for name, tensor in groups.get("best", {}).items()}
    return Progress(Counts(**counts), sums, best or None)


def _tensors(state: dict[str, Any]) -> Tensors:
    """Returns the tensors of an optimiser's state dict, named INDEX.KEY by the parameter's index."""
    return {
        f"{index}.{key}": value
        for index, entries in state["state"].items()
        for key, value in entries.items()
        if isinstance(value, Tensor)
    }


def _without_tensors(state: dict[str, Any]) -> dict[str, Any]:
    """Returns all else of an optimiser's state dict as JSON; index and key of an entry that is no tensor are a list."""
    entries = [
        [index, key, value]
        for index, entries in state["state"].items()
        for key, value in entries.items()
        if not isinstance(value, Tensor)
    ]
    return {"entries": entries, "param_groups": state["param_groups"]}


def load_optimizer(optimizer: torch.optim.Optimizer, described: dict[str, Any], tensors: Tensors) -> None:
    """Restores the state of an optimiser, in place, as `packed` described it.

    Args:
        optimizer: a new optimiser of the same class and parameters.
        described: the part of the state dict without tensors: `param_groups`, and `entries`, a list of [INDEX, KEY,
            VALUE], where INDEX is the position of the parameter and KEY a name such as `step`.
        tensors: the tensors of the state dict, by `INDEX.KEY`, for example `0.momentum_buffer`.
    """
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    for index, key, value in described["entries"]:
        state.setdefault(index, {})[key] = value
    groups = [
        {key: tuple(value) if isinstance(fresh.get(key), tuple) else value for key, value in saved.items()}
        for saved, fresh in zip(described["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for parameter, entries in optimizer.state.items():
        for key, value in entries.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:  # in the parameter's memory layout
                entries[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
