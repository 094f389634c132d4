"""What the program says when a person must change something."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A person's mistake: one message saying what is wrong, where, and what to do. Exit code 2."""


def unknown(what: str, given: object, allowed: Iterable[str]) -> str:
    """The message for a name that is not one of those allowed, with the nearest spelling."""
    allowed = sorted(allowed)
    near = get_close_matches(str(given), allowed, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {given!r}.{hint} Allowed: {', '.join(allowed)}"
