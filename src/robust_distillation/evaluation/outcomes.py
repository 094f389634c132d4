"""Reads and writes outcome files: one row per image and checkpoint of a run. Every table is made from these alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from robust_distillation.columns import CHECKPOINT, CONFIDENCE, NETWORK, confidence_of, prediction_of
from robust_distillation.digests import canonical
from robust_distillation.errors import UserError
from robust_distillation.files import atomic_write

IMAGE = ["index", "label", "prediction", "block", "attack_seed"]  # columns that describe the image
DIGEST = b"digest"  # key of the file's checksum in its metadata


def write_outcomes(path: str | Path, outcomes: pd.DataFrame) -> None:
    """Writes the outcomes of attacks on one network to a Parquet file, sorted by checkpoint and index.

    The same rows in any order give the same bytes. The file has a checksum in its metadata, and appears complete or not
    at all. A missing folder is made.

    Args:
        path: file to write.
        outcomes: one row per test image of each checkpoint of a trained network (a student or a teacher). Columns:
            `teacher`, `student`, `method`, `seed`, `checkpoint` (`best`, `last` or `imported`), `index` (position in
            the test split), `label`, `prediction` (class of the clean image), `block` (number of the set of images that
            were attacked together as one batch), `attack_seed` (seed of the attacks on that block), one bool column per
            attack, such as `pgd20` (True if the clean and the adversarial image are both classified correctly),
            `confidence` (of the clean prediction), and for each attack ATTACK `ATTACK.prediction` (class of the
            adversarial image) and `ATTACK.confidence`.
    """
    attacks = attack_columns(outcomes)
    further = [column for column in outcomes.columns if column not in NETWORK + IMAGE + attacks]
    ordered = outcomes[NETWORK + IMAGE + attacks + further].sort_values([CHECKPOINT, "index"], ignore_index=True)
    table = pa.Table.from_pandas(ordered, preserve_index=False)
    table = table.replace_schema_metadata({**table.schema.metadata, DIGEST: _digest(table)})
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary)


def read_outcomes(paths: Iterable[str | Path]) -> pd.DataFrame:
    """Reads the outcome files of several trained networks into one table.

    Args:
        paths: the Parquet files, at least one, as `write_outcomes` writes them.

    Returns:
        The rows of all files, file after file. One row per test image and checkpoint, with the columns `teacher`,
        `student`, `method`, `seed`, `checkpoint`, `index` (position in the test split), `label`, `prediction` (class of
        the clean image), `block` (number of the set of images that were attacked together as one batch), `attack_seed`
        (seed of the attacks on that block), one bool column per attack (True if the clean and the adversarial image are
        both classified correctly), `confidence` (softmax probability of `prediction`), and for each attack ATTACK
        `ATTACK.prediction` and `ATTACK.confidence` (class of the adversarial image, and its probability). Files of
        older versions lack `confidence` and the columns after it; if they are read together with newer files, their
        rows have NaN there.

    Raises:
        UserError: if a file is missing, unreadable, or does not match its checksum.
    """
    return pd.concat([_read(path) for path in paths], ignore_index=True)


def _read(path: str | Path) -> pd.DataFrame:
    try:
        table = pq.read_table(path)
        if (table.schema.metadata or {}).get(DIGEST) != _digest(table):
            raise ValueError("the checksum does not match its rows")
        return table.replace_schema_metadata().to_pandas()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(
            f"outcomes {path}: cannot be read ({error}). Remove it; the next start attacks again"
        ) from error


def _digest(table: pa.Table) -> bytes:
    """Computes the sha256, as hex digits, of the names, types and values of the columns."""
    sha256 = hashlib.sha256()
    for name in table.column_names:
        column = table.column(name)
        sha256.update(f"{name} {column.type} ".encode())
        sha256.update(canonical(column.to_pylist()).encode())
    return sha256.hexdigest().encode()


def attack_columns(outcomes: pd.DataFrame) -> list[str]:
    """Returns the names of the attacks in a table of outcomes.

    Args:
        outcomes: one row per test image of each trained network, as `read_outcomes` returns it, with one column per
            attack.

    Returns:
        The names of the attacks' bool columns in their order, such as ["pgd20", "autoattack"].
    """
    known, endings = {*NETWORK, *IMAGE, CONFIDENCE}, (prediction_of(""), confidence_of(""))
    return [column for column in outcomes.columns if column not in known and not column.endswith(endings)]


def merge(paths: Iterable[str | Path]) -> pd.DataFrame:
    """Joins the outcome files of the jobs that attacked one trained network on different test images.

    Args:
        paths: the Parquet files of all jobs, such as `.../seed-0/1-of-3.parquet`, `.../seed-0/2-of-3.parquet` and so
            on.

    Returns:
        The rows of all files, file after file: one row per test image and checkpoint, with the columns that
        `read_outcomes` lists, such as `checkpoint`, `index`, `label`, `prediction` and one bool column per attack.

    Raises:
        UserError: if a file cannot be read, or if the values of `index` of a checkpoint are not 0 to N - 1, each once.
    """
    paths = list(paths)
    outcomes = read_outcomes(paths)
    for checkpoint, rows in outcomes.groupby(CHECKPOINT):
        index = sorted(rows["index"])
        if index != list(range(len(index))):
            raise UserError(f"outcomes {paths[0]} and its other shards: {checkpoint} misses images or has some twice")
    return outcomes
