"""Makes the table of accuracies on another dataset, the target, after transfer.

The outcomes are those of `evaluation.attack.attack_run` on the target's test split, with teacher, student, method and
seed of the networks that were transferred. A teacher is transferred too: its rows have the student `-`.
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
    """Computes the mean accuracies over the seeds on another dataset.

    Args:
        outcomes: one row per image of the target's test split and model. Columns: `teacher`, `student`, `method`,
            `seed`, `checkpoint`, `index`, `label`, `prediction`, `block`, `attack_seed`, and one bool per attack.
        spec: the order of the rows. Its metrics are those of the target.
        target: name of the target, a key of `transfer` in the experiment file.

    Returns:
        The content of transfer-TARGET.csv: a row per teacher, student, method, checkpoint and metric. Teachers' own
        rows (student `-`) come first. Students trained without a teacher are under the teacher `none`. Columns:
        `target`, `teacher`, `student`, `method`, `protocol`, `checkpoint`, `metric`, `n_seeds`, `n_images`, `mean`,
        `sd` (NaN for one seed), `ci_low` and `ci_high` (95 % interval). Accuracies are in percent, with 4 decimals.

    Raises:
        UserError: if the seeds of a method were not attacked on the same images.
    """
    table = summary(outcomes).assign(target=target, **{PROTOCOL: spec.protocol})
    return spec.ordered(table, spec.metrics)[COLUMNS].round(4)


def caption(table: pd.DataFrame, spec: TableSpec) -> str:
    """Returns the caption of the table in its Markdown and LaTeX files.

    Args:
        table: as `tidy` returns it; `target`, `student`, `checkpoint`, `n_seeds` and `n_images` are used.
        spec: name of the experiment, threat model, protocol and choice of the checkpoint.
    """
    return (
        f"{spec.experiment}: transfer to {table['target'].iloc[0]}, a linear head on the frozen backbone, attacked "
        f"end to end. Accuracy in percent on {table['n_images'].iloc[0]} test images of the target, {spec.threat}, "
        f"{spec.protocol} protocol; {formats.aggregate_label(table)}. {formats.checkpoints_label(table, spec)}."
    )


def write_tables(outcomes: pd.DataFrame, spec: TableSpec, target: str, folder: Path) -> None:
    """Writes FOLDER/transfer-TARGET.{csv,md,tex}: the mean accuracies over the seeds on another dataset.

    Args:
        outcomes: one row per image of the target's test split and model. Columns: `teacher`, `student`, `method`,
            `seed`, `checkpoint`, `index`, `label`, `prediction`, `block`, `attack_seed`, and one bool per attack.
        spec: comparisons (student and teacher), and the order of the rows. Its metrics are those of the target.
        target: name of the target, a key of `transfer` in the experiment file.
        folder: folder of the tables.

    Raises:
        UserError: if the seeds of a method were not attacked on the same images.
    """
    table = tidy(outcomes, spec, target)
    text, blocks = caption(table, spec), formats.blocks(table, spec, spec.metrics, "{:.2f}".format)
    markdown, latex = formats.markdown(text, blocks, METRIC_TITLES), formats.latex(text, blocks, METRIC_TITLES)
    formats.write(folder / f"transfer-{target}", table, markdown, latex)
