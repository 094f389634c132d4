"""Reading and writing files so that a reader never sees half of one."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robust_distillation.errors import UserError

PARTIAL = ".partial-"


def half_written(folder: str | Path) -> Iterator[Path]:
    """What killed processes left of files below `folder` that were being written."""
    return Path(folder).rglob(f".*{PARTIAL}*")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it takes its place at once, on failure it is removed.

    It is on the disk when this returns: a machine that loses power leaves the old file or the new one. What is killed
    in between leaves the temporary one, see `half_written`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}{PARTIAL}", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno and not error.filename:  # what fails while bytes are written names no file
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def check_reachable(path: Path) -> None:
    """Raises UserError where a folder above `path` is a link that leads nowhere, as to a disk that is not mounted."""
    for folder in path.parents:
        if folder.is_symlink() and not folder.exists():
            raise UserError(
                f"{path}: cannot be read: {folder} leads to {folder.readlink()}, which is not there. Mount it, or "
                "remove the link"
            )


def write_text(path: str | Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, json.dumps(value, sort_keys=True, indent=2) + "\n")


class Damaged(UserError, ValueError):
    """A file of ours that cannot be what was written."""

    def __init__(self, path: str | Path, why: object):
        super().__init__(f"{path}: is damaged ({why}). Remove it; the next start makes it again")


def read_json(path: str | Path) -> Any:
    """Raises Damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise Damaged(path, error) from error


def read_json_lines(path: str | Path) -> list[Any]:
    """At least one. Raises Damaged."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines]
    except ValueError as error:
        raise Damaged(path, error) from error
    if not found:
        raise Damaged(path, "it is empty")
    return found


def sha256(path: str | Path) -> str:
    """sha256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
