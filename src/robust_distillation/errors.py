"""Errors that a person can correct, and the texts of their messages."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from difflib import get_close_matches

MAX_CHARACTERS = 80  # limit of the characters of a value in a message
MAX_NAMES = 12  # limit of the names listed in a message


class UserError(Exception):
    """A mistake of the user. The message says what is wrong, where, and what to do.

    The command line prints the message without a traceback and exits with code 2.
    """


# Message for each kind of operating system error, by error number.
SYSTEM_FAULTS = {
    (errno.ENOSPC, errno.EDQUOT): "the disk is full. Make room and start again",
    (errno.EROFS, errno.EACCES, errno.EPERM): "is read-only, or permission is missing. Allow it and start again",
    (errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENOTCONN, errno.ENXIO): "its disk does not answer. Is it mounted?",
}
ALLOCATOR = "DefaultCPUAllocator"  # names a CPU out-of-memory error, for which torch has no class
MEMORY = (
    "out of memory. Let fewer jobs run at once (snakemake --cores; on a cluster give the rule more mem_mb), or take a "
    "larger device. A smaller training.batch_size or evaluation.block_size helps too, but is another experiment"
)
RESUMES = "What was done is kept, the next start goes on from there"


def system_fault(error: BaseException) -> str | None:
    """Returns the message for an error of the machine: a full or missing disk, no permission, or no memory.

    Args:
        error: any exception.

    Returns:
        A message with the file, what happened and what to do, such as "/data/x.npz: the disk is full. Make room and
        start again. ...". None if the error has another cause.
    """
    if isinstance(error, OSError):
        reason = next((text for numbers, text in SYSTEM_FAULTS.items() if error.errno in numbers), None)
        return reason and f"{error.filename or 'a file'}: {reason}. {RESUMES}"
    return f"{MEMORY}. {RESUMES}" if is_out_of_memory(error) else None


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error means that memory ran out, on the CPU or on a GPU.

    torch's error is recognised by its name, so that torch need not be imported.

    Args:
        error: any exception.
    """
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or ALLOCATOR in str(error)


def short_repr(value: object) -> str:
    """Formats any value for a message: on one line, printable, and at most 80 characters long.

    Args:
        value: the value. None is written "nothing", a dict "a mapping", a list "a list", True "true", an int of more
            than 80 digits "a huge number". A text is quoted, and every other value is written as quoted text of it.

    Returns:
        The text. A longer one is cut and ends with "...".
    """
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and abs(value) >= 10**MAX_CHARACTERS:
        return "a huge number"
    text = repr(value) if isinstance(value, str | int | float) else repr(str(value))
    return text if len(text) <= MAX_CHARACTERS else f"{text[: MAX_CHARACTERS - 3]}..."


def unknown(kind: str, value: object, allowed: Iterable[str]) -> str:
    """Returns the message for an unknown name, with the nearest allowed spelling.

    Args:
        kind: kind of the name, for example "method".
        value: the unknown name, a value of any type.
        allowed: the allowed names.

    Returns:
        A text such as "unknown method 'rsladd'. Did you mean 'rslad'? Allowed: ard, iad, rslad". At most 12 allowed
        names are listed. The question is left out if no allowed name is close.
    """
    allowed = sorted(allowed)
    by_spelling = {name.casefold().replace("_", "").replace("-", ""): name for name in allowed}
    text = value[:MAX_CHARACTERS].casefold().replace("_", "").replace("-", "") if isinstance(value, str) else ""
    near = get_close_matches(text, by_spelling, n=1)
    hint = f" Did you mean {by_spelling[near[0]]!r}?" if near else ""
    more = f" and {len(allowed) - MAX_NAMES} more" if len(allowed) > MAX_NAMES else ""
    return f"unknown {kind} {short_repr(value)}.{hint} Allowed: {', '.join(allowed[:MAX_NAMES])}{more}"
