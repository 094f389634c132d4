"""Reads and writes outcome files: one row per image and checkpoint of a run. Every table is made from these alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from robust_distillation.columns import CHECKPOINT, NETWORK
from robust_distillation.digests import canonical
from robust_distillation.errors import UserError
from robust_distillation.files import atomic_write

IMAGE = ["index", "label", "prediction", "block", "attack_seed"]  # columns that describe the image
DIGEST = b"digest"  # key of the file's checksum in its metadata


def write_outcomes(path: str | Path, outcomes: pd.DataFrame) -> None:
    """Writes outcomes to a Parquet file, sorted by checkpoint and index.

    The same rows in any order give the same bytes. The file appears complete or not at all.

    Args:
        path: file to write.
        outcomes: the columns of NETWORK and IMAGE, and one boolean column per attack.
    """
    attacks = [column for column in outcomes.columns if column not in NETWORK + IMAGE]
    ordered = outcomes[NETWORK + IMAGE + attacks].sort_values([CHECKPOINT, "index"], ignore_index=True)
    table = pa.Table.from_pandas(ordered, preserve_index=False)
    table = table.replace_schema_metadata({**table.schema.metadata, DIGEST: _digest(table)})
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary)


def read_outcomes(paths: Iterable[str | Path]) -> pd.DataFrame:
    """Reads outcome files and returns their rows, file after file.

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
    """Returns the names of the attacks in a table of outcomes: every column that is not in NETWORK or IMAGE."""
    return [column for column in outcomes.columns if column not in NETWORK + IMAGE]


def merge(paths: Iterable[str | Path]) -> pd.DataFrame:
    """Joins the outcome files of the jobs that shared a run's blocks.

    Args:
        paths: the files of all jobs of one run.

    Returns:
        The rows of all files.

    Raises:
        UserError: if a file cannot be read, or if a checkpoint's images are not 0 to N - 1, each once.
    """
    paths = list(paths)
    outcomes = read_outcomes(paths)
    for checkpoint, rows in outcomes.groupby(CHECKPOINT):
        index = sorted(rows["index"])
        if index != list(range(len(index))):
            raise UserError(f"outcomes {paths[0]} and its other shards: {checkpoint} misses images or has some twice")
    return outcomes
