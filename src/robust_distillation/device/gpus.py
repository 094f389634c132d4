"""Which GPU a job takes where a machine has several: one that no other job of this user has."""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import TextIO

log = logging.getLogger(__name__)
FOLDER = Path(tempfile.gettempdir()) / f"robust-distillation-gpus-{os.getuid()}"
WAIT = 1.0  # seconds between two looks

_held: list[TextIO] = []  # open, and so locked, as long as the process lives, however it ends


def take(names: list[str], jobs_each: int = 1, folder: Path = FOLDER) -> int:
    """The position in `names`, which are the GPUs' own and the same in every process of the machine, of one that has
    fewer than `jobs_each` jobs. Waits for one. It is given back when the process ends."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    said = False
    while True:
        for slot in range(jobs_each):  # the emptiest first
            for position, name in enumerate(names):
                held = (folder / f"{name}-{slot}").open("w")
                try:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    held.close()
                    continue
                _held.append(held)
                return position
        if not said:
            log.info("all %d GPUs are taken by other jobs; waiting for one", len(names))
            said = True
        time.sleep(WAIT)
