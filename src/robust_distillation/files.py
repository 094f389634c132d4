"""Atomic writing, JSON reading, and hashing of files."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_distillation.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

PARTIAL = ".partial-"  # part of the name of temporary files


def find_temporary_files(folder: str | Path) -> Iterator[Path]:
    """Finds the temporary files below `folder`, at any depth, that killed processes left behind.

    They are the hidden files `.NAME.partial-*` of `atomic_write`. Files of processes that still run are found too.

    Yields:
        The path of each file.
    """
    return Path(folder).rglob(f".*{PARTIAL}*")


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Context manager: writes a file atomically.

    At the end the temporary file is flushed to disk and renamed to `path`. After an exception it is removed and `path`
    stays unchanged. After a power failure `path` is the old file or the new one. A killed process leaves the temporary
    file, see `find_temporary_files`.

    Args:
        path: the file to write. Its folder is made if it is missing.

    Yields:
        The path of an empty temporary file in the same folder. The caller writes this file inside the `with` block.

    Raises:
        OSError: if the file cannot be written. The error names a file.
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
    """Raises UserError if a folder above `path` is a broken link, for example to a disk that is not mounted.

    Returns nothing. A missing folder that is no link is no error.
    """
    for folder in path.parents:
        if folder.is_symlink() and not folder.exists():
            raise UserError(
                f"{path}: cannot be read: {folder} leads to {folder.readlink()}, which does not exist. Mount it, or "
                "remove the link"
            )


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file in UTF-8 atomically: the file is complete or unchanged.

    Args:
        path: the file to write or replace. Its folder is made if it is missing.
        text: the whole content.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Writes an indented JSON file with sorted keys atomically: the file is complete or unchanged.

    Args:
        path: the file to write or replace. Its folder is made if it is missing.
        value: the content, a value that JSON can represent.

    Raises:
        TypeError: if `value` cannot be written as JSON. Then no file is written.
    """
    write_text(path, json.dumps(value, sort_keys=True, indent=2) + "\n")


class CorruptFileError(UserError, ValueError):
    """A file that this program wrote, and whose content is broken.

    The message names the file and the reason, and says to remove the file.
    """

    def __init__(self, path: str | Path, why: object):
        """Creates the error.

        Args:
            path: the broken file.
            why: the reason, a text or an exception, for the message.
        """
        super().__init__(f"{path}: is damaged ({why}). Remove it; the next start makes it again")


def read_json(path: str | Path) -> Any:
    """Reads a JSON file in UTF-8.

    Args:
        path: the file.

    Returns:
        Its content: a dict, list, text, number, boolean or None.

    Raises:
        CorruptFileError: if the content is not JSON.
        OSError: if the file is missing or cannot be read.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptFileError(path, error) from error


def read_json_lines(path: str | Path) -> list[Any]:
    """Reads a UTF-8 file with one JSON value in each line.

    Args:
        path: the file.

    Returns:
        The values, in the order of the lines; at least one.

    Raises:
        CorruptFileError: if the file is empty or a line is not JSON.
        OSError: if the file is missing or cannot be read.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        values = [json.loads(line) for line in lines]
    except ValueError as error:
        raise CorruptFileError(path, error) from error
    if not values:
        raise CorruptFileError(path, "it is empty")
    return values


def sha256(path: str | Path) -> str:
    """Computes the sha256 of the bytes of the file at `path`, as 64 hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def md5(path: str | Path) -> str:
    """Computes the md5 of the bytes of the file at `path`, as 32 hexadecimal digits. DVC names files by it."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


def read_table(file: Path) -> pd.DataFrame:
    """Reads a table of results from its CSV file.

    Only empty cells are missing values. The texts `NA` and `nan` are kept, since they may be the name of a method.

    Args:
        file: path of the CSV file, such as results/digits/tables/main.csv, with the column names in its first line.

    Returns:
        The table with these columns and an index from 0. Missing values are NaN.
    """
    import pandas as pd

    return pd.read_csv(file, keep_default_na=False, na_values=[""])
