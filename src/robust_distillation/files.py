"""Atomic writing, JSON reading, and hashing of files."""

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

PARTIAL = ".partial-"  # part of the name of temporary files


def find_temporary_files(folder: str | Path) -> Iterator[Path]:
    """Finds the temporary files below `folder` that killed processes left behind."""
    return Path(folder).rglob(f".*{PARTIAL}*")


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Context manager: writes a file atomically.

    Yields the path of a temporary file in the same folder, which the caller writes. At the end the temporary file is
    flushed to disk and renamed to `path`. After an exception it is removed and `path` stays unchanged. After a power
    failure `path` is the old file or the new one. A killed process leaves the temporary file, see
    `find_temporary_files`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}{PARTIAL}", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno and not error.filename:  # errors while bytes are written name no file
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def check_reachable(path: Path) -> None:
    """Raises UserError if a folder above `path` is a broken link, for example to a disk that is not mounted."""
    for folder in path.parents:
        if folder.is_symlink() and not folder.exists():
            raise UserError(
                f"{path}: cannot be read: {folder} leads to {folder.readlink()}, which does not exist. Mount it, or "
                "remove the link"
            )


def write_text(path: str | Path, text: str) -> None:
    """Writes a UTF-8 text file atomically, creating its folder if needed."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Writes an indented JSON file with sorted keys atomically, creating its folder if needed."""
    write_text(path, json.dumps(value, sort_keys=True, indent=2) + "\n")


class CorruptFileError(UserError, ValueError):
    """A file that this program wrote, and whose content is broken."""

    def __init__(self, path: str | Path, why: object):
        """Creates the error. why: the reason, for the message."""
        super().__init__(f"{path}: is damaged ({why}). Remove it; the next start makes it again")


def read_json(path: str | Path) -> Any:
    """Reads a JSON file. Raises CorruptFileError if its content is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptFileError(path, error) from error


def read_json_lines(path: str | Path) -> list[Any]:
    """Reads a file with one JSON value in each line. Raises CorruptFileError if it is empty or a line is not JSON."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        values = [json.loads(line) for line in lines]
    except ValueError as error:
        raise CorruptFileError(path, error) from error
    if not values:
        raise CorruptFileError(path, "it is empty")
    return values


def sha256(path: str | Path) -> str:
    """Computes the sha256 (64 hexadecimal digits) of the bytes of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def md5(path: str | Path) -> str:
    """Computes the md5 (32 hexadecimal digits) of the bytes of a file, by which DVC names it."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()
