"""Outcome files: one row per image and checkpoint of a run; every table is made from these alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from robust_distillation.errors import UserError
from robust_distillation.files import canonical, replacing

KEYS = ["teacher", "student", "method", "seed", "checkpoint"]
DIGEST = b"digest"  # the key of the file's metadata that holds its checksum
IMAGE = ["index", "label", "prediction", "block", "attack_seed"]


def write_outcomes(path: str | Path, outcomes: pd.DataFrame) -> None:
    """Parquet with the rows in the one order: checkpoint, then index. The same rows give the same bytes."""
    attacks = [column for column in outcomes.columns if column not in KEYS + IMAGE]
    ordered = outcomes[KEYS + IMAGE + attacks].sort_values(["checkpoint", "index"], ignore_index=True)
    table = pa.Table.from_pandas(ordered, preserve_index=False)
    table = table.replace_schema_metadata({**table.schema.metadata, DIGEST: _digest(table)})
    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def read_outcomes(paths: Iterable[str | Path]) -> pd.DataFrame:
    """The rows of all files. Raises UserError for a file that is missing or damaged."""
    return pd.concat([_read(path) for path in paths], ignore_index=True)


def _read(path: str | Path) -> pd.DataFrame:
    try:
        table = pq.read_table(path)
        if (table.schema.metadata or {}).get(DIGEST) != _digest(table):
            raise ValueError("its own checksum does not fit")
        return table.replace_schema_metadata().to_pandas()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(
            f"outcomes {path}: cannot be read ({error}). Remove it; the next start attacks again"
        ) from error


def _digest(table: pa.Table) -> bytes:
    """sha256 of the columns' names, types and values."""
    found = hashlib.sha256()
    for name in table.column_names:
        column = table.column(name)
        found.update(f"{name} {column.type} ".encode())
        found.update(canonical(column.to_pylist()).encode())
    return found.hexdigest().encode()


def attack_columns(outcomes: pd.DataFrame) -> list[str]:
    return [column for column in outcomes.columns if column not in KEYS + IMAGE]


def merge(paths: Iterable[str | Path]) -> pd.DataFrame:
    """The whole outcomes of a run from those of its shards; refuses a block that is missing or comes twice."""
    paths = list(paths)
    outcomes = read_outcomes(paths)
    for checkpoint, rows in outcomes.groupby("checkpoint"):
        index = sorted(rows["index"])
        if index != list(range(len(index))):
            raise UserError(f"outcomes {paths[0]} and its other shards: {checkpoint} misses images or has some twice")
    return outcomes
