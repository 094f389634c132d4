"""What a job has done so far, on disk, so that one that was killed goes on where it was.

Below results/EXPERIMENT/.state a job has a folder, which one process at a time holds, and in it a folder for its
configuration: `state`, a file that carries its own checksum, `previous`, the one before, and `configuration.json`, what
they belong to. A state of another configuration lies in another folder, so it is never picked up, and is there still
when somebody goes back to it. `made`, once all is done, holds second names of the files that were made.
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
from robust_distillation.files import read_json, replacing, sha256, write_json

log = logging.getLogger(__name__)
STATES, MADE = ".state", "made"
STOPPERS = signal.SIGTERM, signal.SIGINT  # a scheduler, a person at the keyboard
STOPPED = 128 + signal.SIGTERM  # exit code, as a shell counts


class Work:
    """One job's work, to be entered. `sessions`: the starts that saved something, and this one; `started` and `spent`:
    when the first began, and the seconds of all before this one."""

    def __init__(self, folder: Path, configuration: dict[str, Any], every: float):
        """every: seconds after which what was done is to be saved."""
        self.folder, self.configuration, self.every = folder, configuration, every
        self.own = folder / digest(configuration)[:16]
        self.scratch: Path | None = None  # a file that what was saved relies on
        self.waited = self.stopping = False
        self.sessions, self.started, self.spent = 1, datetime.now(UTC), 0.0
        self._began = self._saved = time.monotonic()
        self._snapshot: Callable[[], bytes] | None = None

    def __enter__(self) -> Self:
        self._lock = self._locked()
        self._handlers = {number: signal.signal(number, self._stop) for number in STOPPERS}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if kind is None:  # all is done
            for file in (self.own / "state", self.own / "previous", self.scratch):
                if file:
                    file.unlink(missing_ok=True)
            if not (self.own / MADE).exists():
                shutil.rmtree(self.own, ignore_errors=True)
        self._release()

    def keep(self, files: dict[str, str]) -> None:
        """Second names for what was made (file to sha256), until whoever started the job knows of it and calls
        `forget_made`: where Snakemake is killed before a job ends, it removes the job's files and starts it again."""
        made = self.own / MADE
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        try:
            for number, file in enumerate(files):
                os.link(file, made / str(number))
            write_json(made / "files.json", list(files.items()))
        except OSError:  # a file system without such names: then it would be made again
            shutil.rmtree(made, ignore_errors=True)

    def restore(self) -> bool:
        """Whether all was made by another process, which was waited for or whose files were removed since, and is in
        its place again. Who starts a job whose files are there wants them made again."""
        made = self.own / MADE
        try:
            known = enumerate(read_json(made / "files.json"))
            files = [(made / str(number), Path(name), content) for number, (name, content) in known]
            whole = all(sha256(kept) == content for kept, _, content in files)
        except (OSError, ValueError, TypeError):
            whole = False
        if not whole or not (self.waited or any(not file.is_file() for _, file, _ in files)):
            shutil.rmtree(made, ignore_errors=True)
            return False
        for kept, file, known in files:
            if not file.is_file() or sha256(file) != known:
                with replacing(file) as temporary:
                    temporary.unlink()
                    os.link(kept, temporary)
        log.info("made already by a process that nobody waited for")
        return True

    def load(self) -> bytes | None:
        """What was saved last, and is whole; None where there is nothing to go on from."""
        self._say_others()
        for name in ("state", "previous"):
            file = self.own / name
            if not file.is_file():
                continue
            try:
                header, payload = _opened(file)
            except ValueError as error:
                broken = file.rename(file.with_name(f"{name}.broken"))
                log.warning("%s: %s, so it is not used; it lies in %s", file, error, broken)
                continue
            self.sessions, self.spent = header["sessions"] + 1, header["spent"]
            self.started = datetime.fromisoformat(header["started"])
            log.info("going on from %s", file)
            return payload
        return None

    def due(self) -> bool:
        """Whether it is time to save, or to stop."""
        return self.stopping or time.monotonic() - self._saved >= self.every

    def save(self, payload: bytes) -> None:
        """Keeps the one before until this one is whole. Ends the process here if it was told to stop."""
        header = {
            "sessions": self.sessions,
            "started": self.started.isoformat(),
            "spent": self.spent + time.monotonic() - self._began,
        }
        self.own.mkdir(parents=True, exist_ok=True)
        if not (described := self.own / "configuration.json").is_file():
            write_json(described, self.configuration)
        state = self.own / "state"
        with replacing(self.own / "written") as temporary:
            temporary.write_bytes(
                canonical({**header, "sha256": _checksum(header, payload)}).encode() + b"\n" + payload
            )
        with suppress(FileNotFoundError):
            os.replace(state, self.own / "previous")
        os.replace(self.own / "written", state)
        self._saved = time.monotonic()
        if self.stopping:
            log.info("stopped; the next start goes on from %s", state)
            raise SystemExit(STOPPED)

    def at_any_time(self, snapshot: Callable[[], bytes]) -> None:
        """From here on `snapshot()` may be saved at any moment: SIGTERM and Ctrl-C end the process at once. Otherwise
        the job asks `due` wherever it can save."""
        self._snapshot = snapshot

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C does not wait
        if self._snapshot:
            self.save(self._snapshot())

    def _say_others(self) -> None:
        for other in sorted(self.folder.glob("*/configuration.json")):
            if other.parent != self.own:
                with suppress(OSError, ValueError):
                    changed = differing(read_json(other), self.configuration)
                    log.warning("%s: is of another configuration (%s), left there", other.parent, ", ".join(changed))

    def _locked(self) -> TextIO | None:
        """Waits until no other process holds the folder; None where the file system has no locks."""
        place = self.folder / "lock"
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                held = place.open("a+")
            except FileNotFoundError:  # the folder was removed meanwhile
                continue
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.seek(0)
                log.warning("%s: %s is at work on this; waiting until it ends", self.folder, held.read() or "a process")
                self.waited = True
                fcntl.flock(held, fcntl.LOCK_EX)
            except OSError as error:
                log.warning("%s: cannot be locked (%s); nobody else should work on it", place, error)
                held.close()
                return None
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(held.fileno()), place.stat()):
                    break
            held.close()
        held.truncate(0)
        held.write(f"process {os.getpid()} on {socket.gethostname()}")
        held.flush()
        return held

    def _release(self) -> None:
        """Leaves no folder behind that is empty."""
        if self._lock is None:
            return
        if not any(path.name != "lock" for path in self.folder.iterdir()):
            (self.folder / "lock").unlink(missing_ok=True)  # whoever waits for it notices and makes another
            _remove_empty(self.folder)
        self._lock.close()


def forget_made(states: Path) -> None:
    """For who started jobs and knows that they ended well. states: the folder of all their states."""
    for made in list(states.rglob(MADE)):
        shutil.rmtree(made.parent, ignore_errors=True)
        (made.parents[1] / "lock").unlink(missing_ok=True)
        _remove_empty(made.parents[1])


def _remove_empty(folder: Path) -> None:
    """And those above it, up to the folder of all states."""
    with suppress(OSError):
        for place in (folder, *folder.parents):
            place.rmdir()
            if place.name == STATES:
                break


def _opened(file: Path) -> tuple[dict[str, Any], bytes]:
    """Raises ValueError where it is not what was written."""
    line, _, payload = file.read_bytes().partition(b"\n")
    try:
        header = json.loads(line)
        known = header.pop("sha256")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError("its first line is damaged") from None
    if _checksum(header, payload) != known:
        raise ValueError("its checksum does not fit")
    return header, payload


def _checksum(header: dict[str, Any], payload: bytes) -> str:
    found = hashlib.sha256(canonical(header).encode())
    found.update(payload)
    return found.hexdigest()


def differing(a: Any, b: Any, place: str = "") -> list[str]:
    """The dotted names of what is not the same in two JSON values."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [
            name
            for key in sorted(a.keys() | b.keys())
            for name in differing(a.get(key), b.get(key), f"{place}.{key}".lstrip("."))
        ]
    return [] if a == b else [place]
