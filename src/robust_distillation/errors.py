"""What the program says when a person must change something."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from difflib import get_close_matches

LONGEST = 80  # characters of a value that a message shows
MOST = 12  # names that a message lists


class UserError(Exception):
    """A person's mistake: one message saying what is wrong, where, and what to do. Exit code 2."""


LACKS = {
    (errno.ENOSPC, errno.EDQUOT): "the disk is full. Make room and start again",
    (errno.EROFS, errno.EACCES, errno.EPERM): "is read-only, or permission is missing. Allow it and start again",
    (errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENOTCONN, errno.ENXIO): "its disk does not answer. Is it mounted?",
}
ALLOCATOR = "DefaultCPUAllocator"  # torch has no class for memory that is missing on the CPU
MEMORY = (
    "out of memory. Let fewer jobs run at once (snakemake --cores; on a cluster give the rule more mem_mb), or take a "
    "larger device. A smaller training.batch_size or evaluation.block_size helps too, but is another experiment"
)
KEPT = "What was done is kept, the next start goes on from there"


def lack(error: BaseException) -> str | None:
    """The message for a fault that is none of the program: disk, permission, memory; None for any other."""
    if isinstance(error, OSError):
        said = next((text for numbers, text in LACKS.items() if error.errno in numbers), None)
        return said and f"{error.filename or 'a file'}: {said}. {KEPT}"
    return f"{MEMORY}. {KEPT}" if ran_out(error) else None


def ran_out(error: BaseException) -> bool:
    """Whether memory did. torch's own class is known by its name, so that nobody imports torch to ask."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or ALLOCATOR in str(error)


def shown(value: object) -> str:
    """A value as a message shows it: on one line, printable and short, whatever it is."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and abs(value) >= 10**LONGEST:
        return "a huge number"
    text = repr(value) if isinstance(value, str | int | float) else repr(str(value))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def unknown(what: str, given: object, allowed: Iterable[str]) -> str:
    """The message for a name that is not one of those allowed, with the nearest spelling."""
    allowed = sorted(allowed)
    folded = {name.casefold().replace("_", "").replace("-", ""): name for name in allowed}
    text = given[:LONGEST].casefold().replace("_", "").replace("-", "") if isinstance(given, str) else ""
    near = get_close_matches(text, folded, n=1)
    hint = f" Did you mean {folded[near[0]]!r}?" if near else ""
    more = f" and {len(allowed) - MOST} more" if len(allowed) > MOST else ""
    return f"unknown {what} {shown(given)}.{hint} Allowed: {', '.join(allowed[:MOST])}{more}"
