"""The first steps of a training as one of the processes that torchrun starts: ranks.py FILE METHOD NORM. The first one
writes losses and weights to FILE."""

from __future__ import annotations

import sys

import torch
from test_training import CPU, SCHEME, SETTINGS, THREAT, network

from robust_distillation import methods
from robust_distillation.data.dataset import load
from robust_distillation.training.loop import Trainer, batches
from robust_distillation.training.parallel import Group, joined, synchronised

STEPS = 5


def first_steps(name: str, group: Group, batch_norm: str) -> dict[str, torch.Tensor]:
    """In float64, on digits."""
    data = load("digits", "train").first(150)  # the last batch is smaller, and its shares are not equal
    model = network(4, 1, torch.float64)
    if group.size > 1 and batch_norm == "synchronised":
        synchronised(model)
    trainer = Trainer(model, methods.get(name)(), SETTINGS, THREAT, 0, group=group)
    losses = []
    for step, (x, *rest) in enumerate(batches(data, SCHEME, SETTINGS, 0, 1, CPU, 0, group)):
        model.train()
        losses.append(trainer.step(x.double(), *rest, 1, step)["loss"])
    assert len(losses) == STEPS
    return {"losses": group.summed({"losses": torch.stack(losses)})["losses"], **model.state_dict()}


if __name__ == "__main__":
    file, name, batch_norm = sys.argv[1:]
    torch.set_num_threads(1)
    group = joined(CPU)
    found = first_steps(name, group, batch_norm)
    if group.rank == 0:
        torch.save(found, file)
