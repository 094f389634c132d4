"""Makes the table of differences between methods.

The CSV file has all checkpoints and metrics. Markdown and LaTeX have the first checkpoint under the strongest attack.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from robust_distillation.columns import CHECKPOINT, METHOD, METRIC
from robust_distillation.comparison import Comparison
from robust_distillation.reporting import formats
from robust_distillation.reporting.references import Reference
from robust_distillation.reporting.table_spec import TableSpec, metric_title
from robust_distillation.statistics.comparing import Outcomes, comparisons
from robust_distillation.statistics.intervals import ALPHA

HEAD = [METHOD, "less", "difference", "simultaneous interval", "adjusted p"]
SCORE = "reference_score"
NONE = "No two methods share a seed."


def tidy(outcomes: Outcomes, spec: TableSpec, references: Mapping[Comparison, Reference] = {}) -> pd.DataFrame:
    """Compares distillation methods on the same seeds and test images, for each teacher and student, checkpoint and
    metric: each method with the reference, or every two.

    The outcomes of two methods are paired by seed and image. `statistics.comparing.comparisons` says how intervals and
    p values are computed. The interval covers training with other seeds and testing on other images, and with one seed
    other images only. Among m pairs of methods with the same teacher, student, checkpoint and metric its level is 1 -
    0.05 / m (Bonferroni), and the p values are adjusted by Holm's method.

    Args:
        outcomes: outcomes of all networks, as `Outcomes.of(read_outcomes(files))` returns them. Its field `models` maps
            (teacher, student, method, checkpoint), such as ("wide", "small", "rslad", "best"), to the outcomes of the S
            seeds on the N test images, among others bool arrays [S,N] for `clean` and each attack.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are `comparisons` (pairs of teacher and student), `methods`, `checkpoints`
            and `columns` (all metrics).
        references: pair of teacher and student to the method that the others are compared to, as
            `reporting.references.references` returns them.

    Returns:
        The content of comparisons.csv: one row per teacher, student, checkpoint, metric and pair of methods that have a
        seed in common. Columns: `teacher`, `student`, `checkpoint`, `metric`, `method` (without a reference, of the
        pair the later in `spec.methods`), `other` (the reference, or the earlier), `n_seeds` (that both have),
        `n_images`, `difference` (`method` minus `other`), `ci_low` and `ci_high` (all three in points or the metric's
        unit, 4 decimals), `p` (two-sided p value of no difference), `p_adjusted` (by Holm's method; both with 4
        significant digits) and `comparisons` (m, the number of pairs of methods with the same teacher, student,
        checkpoint and metric), and `reference_score` (accuracy in percent on the validation split by which the
        reference was chosen; NaN if it was named, or if there is none).
    """
    named = {comparison: reference.method for comparison, reference in references.items()}
    table = comparisons(outcomes, spec.comparisons, spec.methods, spec.checkpoints, spec.columns, named)
    scores = {comparison: reference.score for comparison, reference in references.items()}
    table[SCORE] = [scores.get(Comparison(row.teacher, row.student)) for row in table.itertuples()]
    table[SCORE] = table[SCORE].astype(float).round(4)
    points, chances = ["difference", "ci_low", "ci_high"], ["p", "p_adjusted"]
    table[points] = table[points].astype(float).round(4) + 0.0  # + 0.0: never -0.0
    table[chances] = table[chances].map(lambda p: float(f"{p:.4g}"))
    return table


def caption(spec: TableSpec) -> str:
    """Returns the caption of the table of differences between methods as plain text, for its Markdown and LaTeX files.

    It states that the intervals are simultaneous and that a star marks those that do not contain zero.

    Args:
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are the name of the experiment, the protocol, the threat model, and the
            first of `checkpoints` and the last of `metrics`, which the two files show.
    """
    return (
        f"{spec.experiment}: accuracy of a method less that of the other in points under "
        f"{metric_title(spec.strongest)}, at the checkpoint {spec.first}, on the same images and seeds; "
        f"{spec.attacked}, {spec.protocol} protocol. The intervals of a student hold at once with {1 - ALPHA:.0%} "
        f"(Bonferroni), and a * marks those that zero does not lie in: there Holm's adjusted p is below {ALPHA}."
    )


def at_headline(table: pd.DataFrame, spec: TableSpec) -> list[tuple[Comparison, pd.DataFrame]]:
    """Selects the rows for the figures, the report, Markdown and LaTeX: the first checkpoint and the strongest attack.

    Args:
        table: differences between methods, as `reporting.comparisons.tidy` returns them. Used columns:
            `teacher`, `student`, `checkpoint` and `metric`.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are `comparisons` (pairs of teacher and student), the first of
            `checkpoints`, and the last of `metrics`, which is the strongest attack.

    Returns:
        A list of pairs (comparison, rows), such as `(Comparison("wide", "small"), rows)`, one for each teacher and
        student in the order of `spec.comparisons`. The rows have all columns of `table`. A teacher and student without
        rows are left out.
    """
    rows = table[table[CHECKPOINT].eq(spec.first) & table[METRIC].eq(spec.strongest)]
    return [(comparison, own) for comparison in spec.comparisons if len(own := comparison.own(rows))]


def title(comparison: Comparison, rows: pd.DataFrame) -> str:
    """Returns the heading above the differences of one teacher and student.

    An example is `Student small, teacher wide: 7 comparisons to trades (of the methods without a teacher the best by
    validation: 41.20 %), 3 seeds, 300 images`.

    Args:
        comparison: pair of the names of a teacher and a student network, such as `Comparison(teacher="wide",
            student="small")`.
        rows: rows of `reporting.comparisons.tidy` with this teacher and student, at least one. Used columns: `other`,
            `reference_score`, `n_seeds` and `n_images`.
    """
    seeds, images = formats.seeds_label(rows["n_seeds"]), rows["n_images"].iloc[0]
    reference, score = reference_of(rows), rows[SCORE].iloc[0]
    to = f" to {reference}" if reference else ""
    if not pd.isna(score):
        to += f" (of the methods without a teacher the best by validation: {score:.2f} %)"
    return f"{comparison.label}: {len(rows)} comparison{'s' * (len(rows) != 1)}{to}, {seeds}, {images} images"


def reference_of(rows: pd.DataFrame) -> str | None:
    """Returns the name of the method that all rows of one teacher and student compare to; None if there is none.

    Args:
        rows: rows of `reporting.comparisons.tidy` with one teacher and student, checkpoint and metric. The columns
            `method` and `other` are used.
    """
    others = rows["other"].unique()
    return others[0] if len(others) == 1 and len(rows) > 1 else None


def _cells(row: tuple) -> list[str]:
    apart = " *" if row.p_adjusted < ALPHA else ""
    interval = f"{row.ci_low:+.2f} to {row.ci_high:+.2f}{apart}"
    return [row.method, row.other, f"{row.difference:+.2f}", interval, f"{row.p_adjusted:.2g}"]


def markdown(table: pd.DataFrame, spec: TableSpec) -> str:
    """Returns the caption and one Markdown table of differences between methods for each teacher and student.

    The tables show the first checkpoint under the strongest attack only. A star marks an interval that does not contain
    zero. Names are written as they are, without escaping.

    Args:
        table: differences between methods, as `reporting.comparisons.tidy` returns them. Used columns:
            `teacher`, `student`, `checkpoint`, `metric`, `method`, `other`, `n_seeds`, `n_images`, `difference`,
            `ci_low`, `ci_high` and `p_adjusted`. If it has no rows to show, the sentence `No two methods share a seed.`
            stands in place of the tables.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are `comparisons` (pairs of teacher and student), the first of
            `checkpoints`, the last of `metrics`, and the texts of the caption.
    """
    parts = [caption(spec)]
    for comparison, rows in at_headline(table, spec):
        aligned = ["left", "left", "right", "right", "right"]
        grid = tabulate(
            [_cells(row) for row in rows.itertuples()], HEAD, "pipe", disable_numparse=True, colalign=aligned
        )
        parts.append(f"**{title(comparison, rows)}**\n\n{grid}")
    return "\n\n".join(parts if len(parts) > 1 else [*parts, NONE]) + "\n"


def latex(table: pd.DataFrame, spec: TableSpec) -> str:
    """Returns one LaTeX table of differences between methods for each teacher and student.

    The tables show the first checkpoint under the strongest attack only. A star marks an interval that does not contain
    zero. The tables may run over pages (packages longtable and booktabs). Special characters are escaped here.

    Args:
        table: differences between methods, as `reporting.comparisons.tidy` returns them. Used columns:
            `teacher`, `student`, `checkpoint`, `metric`, `method`, `other`, `n_seeds`, `n_images`, `difference`,
            `ci_low`, `ci_high` and `p_adjusted`. If it has no rows to show, the result is the sentence `No two methods
            share a seed.`
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are `comparisons` (pairs of teacher and student), the first of
            `checkpoints`, the last of `metrics`, and the texts of the caption.
    """
    made = []
    for comparison, rows in at_headline(table, spec):
        cells = [_cells(row) for row in rows.itertuples()]
        made.append(formats.longtable(f"{caption(spec)} {title(comparison, rows)}.", HEAD, cells, "llrrr"))
    return "\n".join(made) or f"{formats.escaped(NONE)}\n"


def write_tables(table: pd.DataFrame, spec: TableSpec, folder: Path) -> list[Path]:
    """Writes the differences between methods as FOLDER/comparisons.csv, FOLDER/comparisons.md and
    FOLDER/comparisons.tex.

    The CSV file has all rows and columns of `table`. The other two files show the first checkpoint under the strongest
    attack only.

    Args:
        table: differences between methods, as `reporting.comparisons.tidy` returns them.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are `comparisons` (pairs of teacher and student), the first of
            `checkpoints`, the last of `metrics`, and the texts of the caption.
        folder: folder of the tables, such as results/digits/tables. It is created if it does not exist.

    Returns:
        The three paths, in this order.
    """
    return formats.write(folder / "comparisons", table, markdown(table, spec), latex(table, spec))
