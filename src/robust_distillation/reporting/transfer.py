"""Table of accuracies on another task.

The outcomes are those of `evaluation.attack.attack_run` on the target's test split, with the keys of the networks that
were transferred. A teacher is transferred too: its rows have the student `-`.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from robust_distillation.columns import PROTOCOL, ROW_KEYS, SPREAD
from robust_distillation.reporting import formats
from robust_distillation.reporting.table_spec import METRIC_TITLES, TableSpec
from robust_distillation.statistics.accuracies import summary

COLUMNS = ["target", *ROW_KEYS, *SPREAD]


def tidy(outcomes: pd.DataFrame, spec: TableSpec, target: str) -> pd.DataFrame:
    """Returns transfer-TARGET.csv: a row per teacher, student, method, checkpoint and metric, in percent.

    Teachers' own rows come first, with the student `-`. Networks trained without a teacher stand once, under the
    teacher `none`.

    Args:
        outcomes: on the target's test images.
        spec: the order of the rows; its metrics are the target's.
        target: name of the target.
    """
    table = summary(outcomes).assign(target=target, **{PROTOCOL: spec.protocol})
    return spec.ordered(table, spec.metrics)[COLUMNS].round(4)


def caption(table: pd.DataFrame, spec: TableSpec) -> str:
    """Returns the caption of the table in its files."""
    return (
        f"{spec.experiment}: transfer to {table['target'].iloc[0]}, a linear head on the frozen backbone, attacked "
        f"end to end. Accuracy in percent on {table['n_images'].iloc[0]} test images of the target, {spec.threat}, "
        f"{spec.protocol} protocol; {formats.aggregate_label(table)}. {formats.checkpoints_label(table, spec)}."
    )


def write_tables(outcomes: pd.DataFrame, spec: TableSpec, target: str, folder: Path) -> None:
    """Writes FOLDER/transfer-TARGET.{csv,md,tex}.

    Args:
        outcomes: on the target's test images.
        spec: the comparisons, and the order of the rows; its metrics are the target's.
        target: name of the target.
        folder: of the tables.
    """
    table = tidy(outcomes, spec, target)
    text, blocks = caption(table, spec), formats.blocks(table, spec, spec.metrics, "{:.2f}".format)
    markdown, latex = formats.markdown(text, blocks, METRIC_TITLES), formats.latex(text, blocks, METRIC_TITLES)
    formats.write(folder / f"transfer-{target}", table, markdown, latex)
