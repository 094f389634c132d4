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
    """Computes the mean accuracies over the seeds on a transfer target, another dataset.

    A transferred network is a frozen network with a new linear head for the classes of the target. The half length of
    an interval is the longest of three (`statistics.intervals.half_width`): Student's t over the means of the S seeds
    (S - 1 degrees of freedom), Student's t with the variance components of seeds and images (Satterthwaite's degrees of
    freedom), and an exact binomial bound (no error in N images). So the interval covers training with other seeds and
    testing on other images, and with one seed other images only.

    Args:
        outcomes: outcomes on the target's test split: one row per trained network (a teacher, or a student of one
            method and one seed), checkpoint and test image, as `evaluation.outcomes.read_outcomes` returns them.
            Columns: `teacher`, `student` (`-` in a row about a teacher), `method`, `seed`, `checkpoint`, `index`
            (position in the test split), `label`, `prediction` (class of the clean image), `block` (number of the batch
            of images that were attacked together), `attack_seed` (seed of the attacks on that batch), and one bool
            column per attack, such as `autoattack`: True if the clean and the adversarial image are both classified
            correctly.
        spec: contents and order of the table, `TableSpec(**experiment.matrix()).transferred(attacks)` with `experiment
            = config.load("params.yaml")` and the names of the attacks on the target, such as `["pgd20"]`. Used are
            `protocol` and the order of the names.
        target: name of the target, a key under `transfer` in the experiment file, such as `parity`.

    Returns:
        The content of tables/transfer-TARGET.csv: one row per teacher, student, method, checkpoint and metric. The rows
        about teachers (student `-`) come first. Students trained without a teacher have the teacher `none`. Columns:
        `target`, `teacher`, `student`, `method`, `protocol`, `checkpoint`, `metric`, `n_seeds`, `n_images`, `mean`,
        `sd` (NaN for one seed), `ci_low` and `ci_high` (95 % interval of the mean). Accuracies are in percent, with 4
        decimals.

    Raises:
        UserError: if the seeds of a method, or a student and its teacher, were not attacked on the same images.
    """
    table = summary(outcomes).assign(target=target, **{PROTOCOL: spec.protocol})
    return spec.ordered(table, spec.metrics)[COLUMNS].round(4)


def caption(table: pd.DataFrame, spec: TableSpec) -> str:
    """Returns the caption of the table of accuracies on a transfer target, as plain text for its Markdown and LaTeX
    files.

    A transfer target is another dataset, for which a frozen network has a new linear head.

    Args:
        table: the content of tables/transfer-TARGET.csv, as `reporting.transfer.tidy` returns it. Used columns:
            `target`, `student`, `checkpoint`, `n_seeds` and `n_images`.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are the name of the experiment, `threat`, `protocol` and `selection` (how
            `best` was chosen).
    """
    return (
        f"{spec.experiment}: transfer to {table['target'].iloc[0]}, a linear head on the frozen backbone, attacked "
        f"end to end. Accuracy in percent on {table['n_images'].iloc[0]} test images of the target, {spec.threat}, "
        f"{spec.protocol} protocol; {formats.aggregate_label(table)}. {formats.checkpoints_label(table, spec)}."
    )


def write_tables(outcomes: pd.DataFrame, spec: TableSpec, target: str, folder: Path) -> None:
    """Writes the mean accuracies on a transfer target as FOLDER/transfer-TARGET.csv, .md and .tex.

    A transfer target is another dataset, for which a frozen network has a new linear head.

    Args:
        outcomes: outcomes on the target's test split: one row per trained network (a teacher, or a student of one
            method and one seed), checkpoint and test image, as `evaluation.outcomes.read_outcomes` returns them.
            Columns: `teacher`, `student` (`-` in a row about a teacher), `method`, `seed`, `checkpoint`, `index`
            (position in the test split), `label`, `prediction` (class of the clean image), `block` (number of the batch
            of images that were attacked together), `attack_seed` (seed of the attacks on that batch), and one bool
            column per attack, such as `autoattack`: True if the clean and the adversarial image are both classified
            correctly.
        spec: contents and order of the table, `TableSpec(**experiment.matrix()).transferred(attacks)` with `experiment
            = config.load("params.yaml")` and the names of the attacks on the target, such as `["pgd20"]`.
        target: name of the target, a key under `transfer` in the experiment file, such as `parity`.
        folder: folder of the tables, such as results/digits/tables. It is created if it does not exist.

    Raises:
        UserError: if the seeds of a method, or a student and its teacher, were not attacked on the same images.
    """
    table = tidy(outcomes, spec, target)
    text, blocks = caption(table, spec), formats.blocks(table, spec, spec.metrics)
    markdown, latex = formats.markdown(text, blocks, METRIC_TITLES), formats.latex(text, blocks, METRIC_TITLES)
    formats.write(folder / f"transfer-{target}", table, markdown, latex)
