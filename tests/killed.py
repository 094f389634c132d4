"""Runs a command of this program that sends itself a signal at the n-th call of a function of its choice:

    python killed.py MODULE:FUNCTION N SIGNAL COMMAND ...

So a process dies where a test wants it to, and the program knows nothing of it.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any


def signalled(place: str, nth: int, number: int) -> None:
    module, _, name = place.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, last = name.split(".")
    for part in outer:
        owner = getattr(owner, part)
    real, calls = getattr(owner, last), 0

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth:
            os.kill(os.getpid(), number)
        return real(*arguments, **named)

    setattr(owner, last, counted)


if __name__ == "__main__":
    place, nth, number, *command = sys.argv[1:]
    signalled(place, int(nth), int(number))
    from robust_distillation.cli import main

    sys.argv = ["robust-distillation", *command]
    main()
