"""What was published, to stand beside what we measure: the rows of published.csv, found by reference.

A reference is the short name of a table, as experiment files list it. Names of students and methods are ours; teachers
are named as in the reference `teachers`, which holds their own numbers. Left out is what no attack of ours equals: CW
within an L2 ball, and the PGD_TRADES of one re-run with another eps and step. Of GACD no number could be read.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("published.csv")
ANY = "-"  # as `student`: the teacher itself; as `checkpoint`: not stated, so it stands beside each of ours
MARKS = {
    "P": "read in the source or in an image of its table",
    "C": "official code or repository",
    "S": "a secondary source that quotes the paper",
    "R": "relayed, doubtful",
}


class Entry(NamedTuple):
    """One published number."""

    reference: str
    paper: str
    table: str
    dataset: str
    teacher: str  # `none` for methods that need none
    student: str
    method: str
    checkpoint: str  # best, last, or ANY
    metric: str
    value: float  # percent
    mark: str  # how well it is known: a key of MARKS
    source: str  # where it was read
    note: str  # what to keep in mind, whole in itself; mostly empty


@cache
def entries() -> tuple[Entry, ...]:
    with open(FILE, encoding="utf-8", newline="") as stream:
        return tuple(Entry(**{**row, "value": float(row["value"])}) for row in csv.DictReader(stream))


def known(among: Sequence[str], teacher: str, student: str, method: str, checkpoint: str, metric: str) -> list[Entry]:
    """What the references `among` say of one number of ours: in their order, stated checkpoints first. Of a teacher
    itself (student `-`) the method does not matter: its name says what it is."""
    found = [
        entry
        for entry in entries()
        if entry.reference in among
        and (entry.teacher, entry.student, entry.metric) == (teacher, student, metric)
        and (student == ANY or entry.method == method)
        and entry.checkpoint in (checkpoint, ANY)
    ]
    return sorted(found, key=lambda entry: (among.index(entry.reference), entry.checkpoint == ANY))
