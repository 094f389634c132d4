"""Published results, the rows of published.csv, for comparison with measured ones.

A reference is the short name of one published table, or of all that is known of a paper on one dataset, as experiment
files list it: `rslad_cifar10_white_box`, `adaad_cifar10`. The rows name students and methods as this package does, and
a method with another setting of the training by a suffix, such as `sat-awp`. They name teachers as the reference
`teachers` does, which has the teachers' own results; of a teacher that is not there nobody published its own numbers.
The teacher of a paper that trained its own has the method or the paper in its name: `wrn34_10_st` (CGARD),
`wrn34_10_sat_adaad`. A student that learns from two teachers has one name for both.

Left out is what cannot be compared: attacks that this package does not have (CW within an L2 ball, PGD_TRADES with
another eps in one rerun, PGD of unstated steps), other datasets (Tiny-ImageNet), and methods that this package does
not have (such as DAJAT's and DAT's own rows, whose tables are there for their baselines). Of the newer papers nothing
stands here that was only relayed. No result of GACD was readable.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("published.csv")
ANY = "-"  # as `student`: a result of the teacher; as `checkpoint`: not stated, so it is compared with every checkpoint
# How reliable a number is.
MARKS = {
    "P": "read in the source or in an image of its table",
    "C": "official code or repository",
    "S": "a secondary source that quotes the paper",
    "R": "relayed, doubtful",
}


class Entry(NamedTuple):
    """Published number, a row of the package's file reference/published.csv, with which a measured accuracy is
    compared.

    Attributes:
        reference: short name of the published table, for example `rslad_cifar10_white_box`. An experiment file lists
            such names under `published`.
        paper: authors and year, for example `RSLAD (Zi 2021)`.
        table: number of the table in the paper, for example `Table 3`.
        dataset: name of the dataset, for example `cifar10`.
        teacher: name of the teacher; `none` for a method that needs no teacher.
        student: name of the student's architecture, for example `resnet18`; `-` (ANY) for a result of the teacher.
        method: name of the distillation or training method, for example `rslad`.
        checkpoint: `best` or `last`; `-` (ANY) if the paper does not state it.
        metric: `clean` or the name of an attack, for example `pgd_trades`.
        value: accuracy in percent.
        mark: reliability of the number, a key of MARKS: `P` (read in the source or an image of its table), `C`
            (official code), `S` (a secondary source that quotes the paper) or `R` (relayed, doubtful).
        source: document from which the number was taken.
        note: remark for readers of a comparison, or "".
    """

    reference: str
    paper: str
    table: str
    dataset: str
    teacher: str
    student: str
    method: str
    checkpoint: str
    metric: str
    value: float
    mark: str
    source: str
    note: str


@cache
def entries() -> tuple[Entry, ...]:
    """Returns all published numbers, the rows of the package's file reference/published.csv, in the order of the file.

    The file is read once; later calls return the same tuple.
    """
    with open(FILE, encoding="utf-8", newline="") as stream:
        return tuple(Entry(**{**row, "value": float(row["value"])}) for row in csv.DictReader(stream))


def find_published(
    among: Sequence[str], teacher: str, student: str, method: str, checkpoint: str, metric: str
) -> list[Entry]:
    """Finds the published numbers with which a measured accuracy is compared.

    Args:
        among: short names of the published tables to search, for example `["rslad_cifar10_white_box"]`: `published` of
            the experiment file.
        teacher: name of the teacher, as published.csv writes it; `none` for a method that needs no teacher.
        student: name of the student's architecture, for example `resnet18`; `-` (ANY) for a result of the teacher. Then
            `method` is ignored.
        method: name of the distillation or training method, for example `rslad`.
        checkpoint: `best` or `last`. Numbers whose checkpoint is not stated match both.
        metric: `clean` or the name of an attack, for example `autoattack`.

    Returns:
        The matching rows of published.csv in the order of `among`; empty if there are none. Within one published table,
        those with a stated checkpoint come first.
    """
    matching = [
        entry
        for entry in entries()
        if entry.reference in among
        and (entry.teacher, entry.student, entry.metric) == (teacher, student, metric)
        and (student == ANY or entry.method == method)
        and entry.checkpoint in (checkpoint, ANY)
    ]
    return sorted(matching, key=lambda entry: (among.index(entry.reference), entry.checkpoint == ANY))
