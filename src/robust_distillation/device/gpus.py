"""Assignment of GPUs to the jobs of one user on a machine with several GPUs, by lock files."""

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
WAIT = 1.0  # seconds between two attempts

_locks: list[TextIO] = []  # lock files of this process; the operating system unlocks them when it ends


def acquire(names: list[str], jobs_each: int = 1, folder: Path = FOLDER) -> int:
    """Reserves a GPU for this process, waiting until one is free. The reservation ends with the process.

    Only processes that use the same `folder` see each other's reservations.

    Args:
        names: unique ids of the GPUs in torch's order, such as their UUIDs; at least one, and the same in every process
            of the machine. They are part of the names of the lock files.
        jobs_each: number of jobs that may share a GPU; at least 1.
        folder: folder of the lock files, one for each GPU and job. It is made if it is missing. The default is
            robust-distillation-gpus-UID in the system's folder for temporary files, where UID is the number of the
            user.

    Returns:
        The position in `names` of the reserved GPU, which had fewer than `jobs_each` jobs. A GPU with the fewest jobs
        is preferred, then the first in `names`.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    logged = False
    while True:
        for slot in range(jobs_each):  # GPUs with the fewest jobs first
            for position, name in enumerate(names):
                lock = (folder / f"{name}-{slot}").open("w")
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    lock.close()
                    continue
                _locks.append(lock)
                return position
        if not logged:
            log.info("all %d GPUs are taken by other jobs; waiting for one", len(names))
            logged = True
        time.sleep(WAIT)
