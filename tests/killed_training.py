"""Trainings that save their state whenever they can, and may end themselves by kill -9: each in a process of its own.

    python killed_training.py METHOD FOLDER '[["PLACE", N], ...]'

prints the exit codes. One process imports what takes seconds and forks the others.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch
import torch._dynamo  # for those that are forked: a training loads it, which takes seconds
from killed import signalled
from test_training import CPU, SCHEME, trainer_of

from robust_distillation.data.dataset import load
from robust_distillation.methods.table import ImageTable
from robust_distillation.models.checkpoint import weights_digest
from robust_distillation.resume import ResumableJob
from robust_distillation.training.loop import train


def run(method: str, folder: Path, place: str = "", nth: int = 0) -> None:
    """Trains in 15 steps; dies at the n-th call of the function `place`, or writes digests of all results to a file."""
    torch.set_num_threads(1)
    data = load("digits", "train").first(160)
    trainer = trainer_of(method, data)
    if place:
        signalled(place, nth, signal.SIGKILL)
    with ResumableJob(folder, {}, 0) as work:
        progress = train(trainer, data, data.first(20), SCHEME, CPU, work)
    tables = [module.values for module in trainer.own.values() if isinstance(module, ImageTable)]
    digests = [weights_digest(tensors) for tensors in (trainer.module.state_dict(), progress.best, *tables)]
    folder.parent.mkdir(exist_ok=True)  # a finished job removes its folder, and an empty one above
    folder.with_suffix(".json").write_text(json.dumps([digests, progress.counts.metrics]))


def in_a_fork(*arguments) -> int:
    """Returns the exit code of `run`, minus the signal that killed it."""
    child = os.fork()
    if not child:
        run(*arguments)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    method, folder, kills = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    print(json.dumps([in_a_fork(method, folder, *kill) for kill in kills]))
