"""Saving and restoring the progress of a job, so that a killed job continues from its last saved state.

Each job has a folder below results/EXPERIMENT/.state, locked by one process at a time. Within it, each configuration of
the job (its settings, code and inputs) has a folder of its own with these files:

- `state`: the saved progress, with a checksum.
- `previous`: the state saved before.
- `configuration.json`: the configuration.
- `tables/`: rows of a method's tables that are too large for the state, see `training.tables`.
- `made/`: hard links to the outputs, after the job has finished.

A job never continues from the state of another configuration. That state stays on disk and is used if the configuration
is changed back.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, Self, TextIO

from robust_distillation.digests import canonical, digest
from robust_distillation.files import atomic_write, read_json, sha256, write_json

log = logging.getLogger(__name__)
STATES, MADE = ".state", "made"
STOPPERS = signal.SIGTERM, signal.SIGINT  # sent by a scheduler, sent by Ctrl-C
STOPPED = 128 + signal.SIGTERM  # exit code of a stopped job, by the convention of shells


class ResumableJob:
    """The saved progress of a job, such as one training, that can be stopped and resumed; a context manager.

    Entering locks the job's folder and waits while another process has the lock. It also catches SIGTERM and Ctrl-C, so
    that the job is saved before it ends; so it must be entered in the main thread. Leaving without an exception removes
    the saved state. Leaving with an exception keeps it for the next start.

    Attributes:
        folder: folder of the saved states of the job, such as `results/digits/.state/students/wide/small/rslad/seed-0`.
        configuration: dict of JSON values that identify the job's settings, code and inputs: `step` (name of the
            command), `settings`, `code` (hash of the source code) and `inputs` (path to sha256).
        every: seconds between two saved states.
        state_folder: folder in `folder` of the states of this configuration.
        stopping: whether a signal asked the job to stop.
        waited: whether another process had the lock when this one started.
        sessions: number of earlier starts that saved a state, plus 1 for this one. It is 1 until `load` returns a
            state.
        started: time (UTC) at which the first of these starts began.
        spent: seconds that all starts before this one took.
        scratch: file or folder that the saved states need, removed at the end of the job, or None. The job sets it.
    """

    def __init__(self, folder: Path, configuration: dict[str, Any], every: float):
        """Creates the job. Reads and writes nothing.

        Args:
            folder: folder of the saved states of the job, such as
                `results/digits/.state/students/wide/small/rslad/seed-0`. It need not exist.
            configuration: dict of JSON values that identify the job's settings, code and inputs, as
                `pipeline.record.Recorder.configuration` returns it. A state that was saved with another configuration
                is never loaded.
            every: seconds between two saved states, `compute.save_every`.
        """
        self.folder, self.configuration, self.every = folder, configuration, every
        self.state_folder = folder / digest(configuration)[:16]
        self.scratch: Path | None = None
        self.waited = self.stopping = False
        self.sessions, self.started, self.spent = 1, datetime.now(UTC), 0.0
        self._began = self._saved = time.monotonic()
        self._snapshot: Callable[[], bytes] | None = None

    def __enter__(self) -> Self:
        """Locks the job's folder, waiting while another process has the lock, and catches SIGTERM and Ctrl-C."""
        self._lock = self._locked()
        self._handlers = {number: signal.signal(number, self._stop) for number in STOPPERS}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Releases the lock and restores the signal handlers.

        If no exception occurred (`kind` is None), the saved states of this configuration and `scratch` are removed.
        Exceptions are not suppressed.
        """
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if kind is None:  # the job has finished
            for file in (self.state_folder / "state", self.state_folder / "previous", self.scratch):
                if file and file.is_dir():
                    shutil.rmtree(file)
                elif file:
                    file.unlink(missing_ok=True)
            if not (self.state_folder / MADE).exists():
                shutil.rmtree(self.state_folder, ignore_errors=True)
        self._release()

    def link_outputs(self, files: dict[str, str]) -> None:
        """Makes hard links to the finished outputs of the job, so that `restore` can bring them back.

        If Snakemake is killed before a job ends, its next start removes the job's outputs and runs the job again. The
        links stay until `remove_links` removes them. Without hard links on the file system, nothing is kept.

        Args:
            files: path of each output to its sha256 (64 hexadecimal digits).
        """
        made = self.state_folder / MADE
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        try:
            for number, file in enumerate(files):
                os.link(file, made / str(number))
            write_json(made / "files.json", list(files.items()))
        except OSError:  # a file system without hard links: the job would run again
            shutil.rmtree(made, ignore_errors=True)

    def restore(self) -> bool:
        """Restores the outputs of an earlier process that finished this job, if there are links to them.

        The links are those of `link_outputs`. They are used if this process waited for the earlier one, or if an output
        is missing because Snakemake removed it. If all outputs exist and this process did not wait, the job was started
        to make them again: then the links are removed. Damaged links are removed too.

        Returns:
            True if all outputs exist now with their old content, so that the job has nothing to do. False if it must
            run.
        """
        made = self.state_folder / MADE
        try:
            entries = enumerate(read_json(made / "files.json"))
            files = [(made / str(number), Path(name), hash_) for number, (name, hash_) in entries]
            intact = all(sha256(link) == hash_ for link, _, hash_ in files)
        except (OSError, ValueError, TypeError):
            intact = False
        if not intact or not (self.waited or any(not file.is_file() for _, file, _ in files)):
            shutil.rmtree(made, ignore_errors=True)
            return False
        for link, file, hash_ in files:
            if not file.is_file() or sha256(file) != hash_:
                with atomic_write(file) as temporary:
                    temporary.unlink()
                    os.link(link, temporary)
        log.info("made already by a process that nobody waited for")
        return True

    def load(self) -> bytes | None:
        """Returns the payload of the newest intact state of this configuration, as it was passed to `save`.

        A damaged state is renamed to `state.broken` or `previous.broken`. Then the state saved before it is tried. Also
        restores `sessions`, `started` and `spent`, and logs a warning for each state of another configuration.

        Returns:
            The payload, or None if there is no intact state.
        """
        self._warn_of_others()
        for name in ("state", "previous"):
            file = self.state_folder / name
            if not file.is_file():
                continue
            try:
                header, payload = _read_state(file)
            except ValueError as error:
                broken = file.rename(file.with_name(f"{name}.broken"))
                log.warning("%s: %s, so it is not used; it lies in %s", file, error, broken)
                continue
            self.sessions, self.spent = header["sessions"] + 1, header["spent"]
            self.started = datetime.fromisoformat(header["started"])
            log.info("going on from %s", file)
            return payload
        return None

    def should_save(self) -> bool:
        """Returns whether the job should save now.

        It should if `every` seconds have passed since the last save (or the start), or if a signal asked it to stop.
        """
        return self.stopping or time.monotonic() - self._saved >= self.every

    def save(self, payload: bytes) -> None:
        """Saves a state in a file with a checksum. The state saved before is kept as `previous`.

        Args:
            payload: the progress of the job, as `load` will return it.

        Raises:
            SystemExit: after saving, if a signal asked the job to stop. The exit code is 143.
        """
        header = {
            "sessions": self.sessions,
            "started": self.started.isoformat(),
            "spent": self.spent + time.monotonic() - self._began,
        }
        self.state_folder.mkdir(parents=True, exist_ok=True)
        if not (file := self.state_folder / "configuration.json").is_file():
            write_json(file, self.configuration)
        state = self.state_folder / "state"
        with atomic_write(self.state_folder / "written") as temporary:
            temporary.write_bytes(
                canonical({**header, "sha256": _checksum(header, payload)}).encode() + b"\n" + payload
            )
        with suppress(FileNotFoundError):
            os.replace(state, self.state_folder / "previous")
        os.replace(self.state_folder / "written", state)
        self._saved = time.monotonic()
        if self.stopping:
            log.info("stopped; the next start goes on from %s", state)
            raise SystemExit(STOPPED)

    def set_snapshot(self, snapshot: Callable[[], bytes]) -> None:
        """Allows saving at any moment: SIGTERM and Ctrl-C then save `snapshot()` and end the process at once.

        Without it, the job must call `should_save` and `save` at the points where it can be saved.

        Args:
            snapshot: function without arguments that returns the payload to save. It must return a consistent state
                whenever it is called.
        """
        self._snapshot = snapshot

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Handles SIGTERM and Ctrl-C."""
        self.stopping = True
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C ends the process at once
        if self._snapshot:
            self.save(self._snapshot())

    def _warn_of_others(self) -> None:
        """Logs which settings differ from those of each other configuration with a saved state."""
        for other in sorted(self.folder.glob("*/configuration.json")):
            if other.parent != self.state_folder:
                with suppress(OSError, ValueError):
                    changed = differing_keys(read_json(other), self.configuration)
                    log.warning("%s: is of another configuration (%s), left there", other.parent, ", ".join(changed))

    def _locked(self) -> TextIO | None:
        """Locks the job's folder, waiting while another process has the lock.

        Returns the locked file, or None if the file system has no locks.
        """
        path = self.folder / "lock"
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock = path.open("a+")
            except FileNotFoundError:  # another process removed the folder meanwhile
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                log.warning("%s: %s is at work on this; waiting until it ends", self.folder, lock.read() or "a process")
                self.waited = True
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                log.warning("%s: cannot be locked (%s); nobody else should work on it", path, error)
                lock.close()
                return None
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                    break
            lock.close()
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        return lock

    def _release(self) -> None:
        """Releases the lock, and removes the job's folder if it is empty."""
        if self._lock is None:
            return
        if not any(path.name != "lock" for path in self.folder.iterdir()):
            (self.folder / "lock").unlink(missing_ok=True)  # a process that waits for it notices and creates another
            _remove_empty(self.folder)
        self._lock.close()


def remove_links(states: Path) -> None:
    """Removes the links to finished outputs that `ResumableJob.link_outputs` made, and the folders that are then empty.

    Call it when no job runs any more.

    Args:
        states: folder with the saved progress of all jobs of an experiment, such as `results/digits/.state`;
            `layout.states` returns it.
    """
    for made in list(states.rglob(MADE)):
        shutil.rmtree(made.parent, ignore_errors=True)
        (made.parents[1] / "lock").unlink(missing_ok=True)
        _remove_empty(made.parents[1])


def _remove_empty(folder: Path) -> None:
    """Removes a folder and those above it, as long as they are empty, up to the folder of all states."""
    with suppress(OSError):
        for path in (folder, *folder.parents):
            path.rmdir()
            if path.name == STATES:
                break


def _read_state(file: Path) -> tuple[dict[str, Any], bytes]:
    """Reads a state file: header and payload. Raises ValueError if it is damaged."""
    line, _, payload = file.read_bytes().partition(b"\n")
    try:
        header = json.loads(line)
        checksum = header.pop("sha256")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError("its first line is damaged") from None
    if _checksum(header, payload) != checksum:
        raise ValueError("its checksum does not fit")
    return header, payload


def _checksum(header: dict[str, Any], payload: bytes) -> str:
    """Computes the sha256 of a header and a payload."""
    hasher = hashlib.sha256(canonical(header).encode())
    hasher.update(payload)
    return hasher.hexdigest()


def differing_keys(a: Any, b: Any, place: str = "") -> list[str]:
    """Compares two JSON values and returns the names of the entries in which they differ.

    Args:
        a: a JSON value.
        b: the JSON value to compare it with.
        place: dotted name of the two values, in front of all names in the result; "" for none.

    Returns:
        The dotted names of all entries that differ or exist in one value only, for example ["training.epochs"]. Lists
        are compared as a whole. An entry that is None counts as missing. [`place`] if the values are not both dicts and
        differ; empty if they are equal.
    """
    if isinstance(a, dict) and isinstance(b, dict):
        return [
            name
            for key in sorted(a.keys() | b.keys())
            for name in differing_keys(a.get(key), b.get(key), f"{place}.{key}".lstrip("."))
        ]
    return [] if a == b else [place]
