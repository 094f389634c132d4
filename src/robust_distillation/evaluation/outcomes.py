"""Outcome files: one row per image and checkpoint of a run; every table is made from these alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from robust_distillation.errors import UserError
from robust_distillation.files import replacing

KEYS = ["teacher", "student", "method", "seed", "checkpoint"]
IMAGE = ["index", "label", "prediction", "block", "attack_seed"]


def write_outcomes(path: str | Path, outcomes: pd.DataFrame) -> None:
    """Parquet with the rows in the one order: checkpoint, then index. The same rows give the same bytes."""
    attacks = [column for column in outcomes.columns if column not in KEYS + IMAGE]
    ordered = outcomes[KEYS + IMAGE + attacks].sort_values(["checkpoint", "index"], ignore_index=True)
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pandas(ordered, preserve_index=False), temporary)


def read_outcomes(paths: Iterable[str | Path]) -> pd.DataFrame:
    """The rows of all files. Raises UserError for a file that is missing or broken."""
    frames = []
    for path in paths:
        try:
            frames.append(pd.read_parquet(path))
        except (OSError, pa.ArrowInvalid) as error:
            raise UserError(
                f"outcomes {path}: cannot be read ({error}). Remove it; the next start attacks again"
            ) from error
    return pd.concat(frames, ignore_index=True)


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
