"""What one of the processes that torchrun starts does. The first one writes what it found to FILE.

ranks.py FILE steps NORM METHOD...: of each method the losses, weights and state after the first steps of a training.
METHOD+VARIANT: with the settings MORE of the training, and this variant of weight perturbation.
ranks.py FILE extra METHOD...: the same with extra images, half of each batch.
ranks.py FILE resumed METHOD: the lines of a training's epochs, alone and killed in each step of the first.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import torch
from test_training import CPU, SCHEME, SETTINGS, trainer_of

from robust_distillation.data.dataset import load
from robust_distillation.methods.table import ImageTable
from robust_distillation.resume import ResumableJob
from robust_distillation.settings import Training
from robust_distillation.training.averaging import reestimate_statistics
from robust_distillation.training.batches import Batch, batches
from robust_distillation.training.loop import train
from robust_distillation.training.parallel import Group, init_group, synchronised

STEPS = 5
MORE = {
    "milestones": [],
    "schedule": {"name": "cosine", "warmup": 0.5},
    "averaging": {"name": "ema", "decay": 0.5, "batch_norm": "reestimate"},
    "label_smoothing": 0.1,
}


def first_steps(name: str, group: Group, batch_norm: str, share: float = 0.0) -> dict[str, torch.Tensor]:
    """Runs the first steps in float64, on digits with a share of extra images."""
    data = load("digits", "train").first(149)  # the last batch has 21 images: 10 for one process, 11 for the other
    if share:
        data = data.with_extra(load("digits", "test").first(50), share)
    synchronise = group.size > 1 and batch_norm == "synchronised"
    name, _, variant = name.partition("+")
    perturbation = {"weight_perturbation": {"gamma": 0.01, "variant": variant}}
    settings = Training.model_validate(SETTINGS.model_dump() | MORE | perturbation) if variant else SETTINGS
    prepare = synchronised if synchronise else None
    trainer = trainer_of(name, data, dtype=torch.float64, group=group, prepare=prepare, settings=settings)
    if synchronise:
        for module in trainer.own.values():
            synchronised(module)
    losses = []
    trainer.begin_epoch(1)
    for batch in batches(data, SCHEME, SETTINGS, 0, 1, CPU, 0, group):
        losses.append(trainer.step(replace(batch, x=batch.x.double()))["loss"])
    trainer.end_epoch(1)
    assert len(losses) == STEPS
    found = trainer.module.state_dict()
    for name, module in trainer.own.items():
        if isinstance(module, ImageTable):
            found |= {f"{name}.{key}": values for key, values in module.values.items()}
    if variant:
        parts = batches(data, SCHEME, settings, 0, 1, CPU, 0, group)
        reestimate_statistics(trainer.evaluated, (replace(batch, x=batch.x.double()) for batch in parts))
        found |= {f"average.{name}": tensor for name, tensor in trainer.average.state_dict().items()}
    return {"losses": group.summed({"losses": torch.stack(losses)})["losses"], **found}


def resumed(group: Group, folder: Path, method: str) -> dict[str, list[dict[str, float]]]:
    """In float32, where the order of additions shows."""
    data = load("digits", "train").first(200)

    def lines(work: ResumableJob | None = None, dies_in: int | None = None) -> list[dict[str, float]]:
        trainer = trainer_of(method, data, group=group)
        real, calls = trainer.step, 0

        def step(batch: Batch) -> dict[str, torch.Tensor]:
            nonlocal calls
            calls += 1
            if calls == dies_in:
                raise KeyboardInterrupt
            return real(batch)

        trainer.step = step
        return train(trainer, data, data.first(20), SCHEME, CPU, work).counts.metrics

    found = {"alone": lines()}
    for killed in range(2, 8):  # of 7 steps an epoch
        for dies_in in (killed, None):
            first = ResumableJob(folder / str(killed), {}, 0) if group.rank == 0 else nullcontext()
            with suppress(KeyboardInterrupt), first as work:
                found[f"killed in step {killed}"] = lines(work, dies_in)
    return found


if __name__ == "__main__":
    file, what, *options = sys.argv[1:]
    torch.set_num_threads(1)
    group = init_group(CPU)
    Path(file).touch()  # its folder is not empty, so work that ends leaves it
    if what == "steps":
        batch_norm, *names = options
        found = {name: first_steps(name, group, batch_norm) for name in names}
    elif what == "extra":
        found = {name: first_steps(name, group, "synchronised", 0.5) for name in options}
    else:
        found = resumed(group, Path(file).parent / "states", *options)
    if group.rank == 0:
        torch.save(found, file)
