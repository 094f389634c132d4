"""What one of the processes that torchrun starts does. The first one writes what it found to FILE.

ranks.py FILE steps METHOD NORM: losses and weights after the first steps of a training.
ranks.py FILE resumed: the lines of a training's epochs, alone and killed in each step of the first.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext, suppress
from pathlib import Path

import torch
from test_training import CPU, SCHEME, SETTINGS, THREAT, network

from robust_distillation import methods
from robust_distillation.data.dataset import load
from robust_distillation.resume import Work
from robust_distillation.training.loop import Trainer, batches, train
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


def resumed(group: Group, folder: Path) -> dict[str, list[dict[str, float]]]:
    """In float32, where the order of additions shows."""
    data = load("digits", "train").first(200)

    def lines(work: Work | None = None, dies_in: int | None = None) -> list[dict[str, float]]:
        trainer = Trainer(network(4, 1), methods.get("trades")(), SETTINGS, THREAT, 0, group=group)
        real, calls = trainer.step, 0

        def step(*given):
            nonlocal calls
            calls += 1
            if calls == dies_in:
                raise KeyboardInterrupt
            return real(*given)

        trainer.step = step
        return train(trainer, data, data.first(20), SCHEME, CPU, work).counts.metrics

    found = {"alone": lines()}
    for killed in range(2, 8):  # of 7 steps an epoch
        for dies_in in (killed, None):
            first = Work(folder / str(killed), {}, 0) if group.rank == 0 else nullcontext()
            with suppress(KeyboardInterrupt), first as work:
                found[f"killed in step {killed}"] = lines(work, dies_in)
    return found


if __name__ == "__main__":
    file, what, *given = sys.argv[1:]
    torch.set_num_threads(1)
    group = joined(CPU)
    Path(file).touch()  # its folder is not empty, so work that ends leaves it
    found = first_steps(given[0], group, given[1]) if what == "steps" else resumed(group, Path(file).parent / "states")
    if group.rank == 0:
        torch.save(found, file)
