"""Makes the table of differences between every two methods.

The CSV file has all checkpoints and metrics. Markdown and LaTeX have the first checkpoint under the strongest attack.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from tabulate import tabulate

from robust_distillation.columns import CHECKPOINT, METHOD, METRIC
from robust_distillation.comparison import Comparison
from robust_distillation.reporting import formats
from robust_distillation.reporting.table_spec import TableSpec, metric_title
from robust_distillation.statistics.comparing import Outcomes, comparisons
from robust_distillation.statistics.intervals import ALPHA

HEAD = [METHOD, "other", "difference", "simultaneous interval", "adjusted p"]
NONE = "No two methods share a seed."


def tidy(outcomes: Outcomes, spec: TableSpec) -> pd.DataFrame:
    """Compares every two methods, for each student and teacher, checkpoint and metric.

    Args:
        outcomes: correct or not for each model, seed, image and metric.
        spec: comparisons (student and teacher), methods, checkpoints and metrics.

    Returns:
        The content of comparisons.csv: a row per two methods that share a seed. Columns: `teacher`, `student`,
        `checkpoint`, `metric`, `method`, `other` (of the two the earlier in `spec.methods`), `n_seeds`, `n_images`,
        `difference` (of `method` minus `other`), `ci_low` and `ci_high` (its simultaneous 95 % interval; all in
        percentage points, 4 decimals), `p` and `p_adjusted` (4 significant digits) and `comparisons` (number of rows
        that are corrected together by Bonferroni: those of one teacher, student, checkpoint and metric).
    """
    table = comparisons(outcomes, spec.comparisons, spec.methods, spec.checkpoints, spec.metrics)
    points, chances = ["difference", "ci_low", "ci_high"], ["p", "p_adjusted"]
    table[points] = table[points].astype(float).round(4) + 0.0  # + 0.0: never -0.0
    table[chances] = table[chances].map(lambda p: float(f"{p:.4g}"))
    return table


def caption(spec: TableSpec) -> str:
    """Returns the caption of the table in its Markdown and LaTeX files.

    Args:
        spec: name of the experiment, protocol, threat model, first checkpoint and last metric.
    """
    return (
        f"{spec.experiment}: accuracy of a method less that of another in points under "
        f"{metric_title(spec.strongest)}, at the checkpoint {spec.first}, on the same images and seeds; "
        f"{spec.attacked}, {spec.protocol} protocol. The intervals of a student hold at once with {1 - ALPHA:.0%} "
        f"(Bonferroni), and a * marks those that leave zero out: there the adjusted p is below {ALPHA}."
    )


def at_headline(table: pd.DataFrame, spec: TableSpec) -> list[tuple[Comparison, pd.DataFrame]]:
    """Selects the rows that people see: those at the first checkpoint under the strongest attack.

    Args:
        table: as `tidy` returns it; `teacher`, `student`, `checkpoint` and `metric` are used.
        spec: the comparisons; its first checkpoint and its last metric are selected.

    Returns:
        (comparison, rows) for each student and teacher, in the order of `spec`. A comparison in which no two methods
        share a seed is left out.
    """
    rows = table[table[CHECKPOINT].eq(spec.first) & table[METRIC].eq(spec.strongest)]
    return [(comparison, own) for comparison in spec.comparisons if len(own := comparison.own(rows))]


def title(comparison: Comparison, rows: pd.DataFrame) -> str:
    """Returns the heading of the rows of one comparison.

    An example is `Student small, teacher wide: 28 comparisons, 3 seeds, 300 images`.

    Args:
        comparison: the student and the teacher.
        rows: rows of `tidy` of this comparison, at least one, with the columns `n_seeds` and `n_images`.
    """
    seeds, images = formats.seeds_label(rows["n_seeds"]), rows["n_images"].iloc[0]
    return f"{comparison.label}: {len(rows)} comparisons, {seeds}, {images} images"


def _cells(row: tuple) -> list[str]:
    apart = " *" if row.p_adjusted < ALPHA else ""
    interval = f"{row.ci_low:+.2f} to {row.ci_high:+.2f}{apart}"
    return [row.method, row.other, f"{row.difference:+.2f}", interval, f"{row.p_adjusted:.2g}"]


def markdown(table: pd.DataFrame, spec: TableSpec) -> str:
    """Returns the caption and a Markdown table per comparison, at the first checkpoint under the strongest attack.

    Args:
        table: as `tidy` returns it, with the columns `teacher`, `student`, `checkpoint`, `metric`, `method`, `other`,
            `n_seeds`, `n_images`, `difference`, `ci_low`, `ci_high` and `p_adjusted`. If no two methods share a seed, a
            sentence stands in place of the tables.
        spec: the comparisons; its first checkpoint and its last metric are shown.
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
    """Returns a LaTeX table per comparison, at the first checkpoint under the strongest attack.

    The tables may run over pages (packages longtable and booktabs).

    Args:
        table: as `tidy` returns it, with the columns `teacher`, `student`, `checkpoint`, `metric`, `method`, `other`,
            `n_seeds`, `n_images`, `difference`, `ci_low`, `ci_high` and `p_adjusted`. If no two methods share a seed, a
            sentence is returned.
        spec: the comparisons; its first checkpoint and its last metric are shown.
    """
    made = []
    for comparison, rows in at_headline(table, spec):
        cells = [_cells(row) for row in rows.itertuples()]
        made.append(formats.longtable(f"{caption(spec)} {title(comparison, rows)}.", HEAD, cells, "llrrr"))
    return "\n".join(made) or f"{formats.escaped(NONE)}\n"


def write_tables(table: pd.DataFrame, spec: TableSpec, folder: Path) -> list[Path]:
    """Writes FOLDER/comparisons.{csv,md,tex}, and returns their paths in this order.

    Args:
        table: differences between methods, as `tidy` returns them, with the columns of comparisons.csv.
        spec: the comparisons; its first checkpoint and its last metric are shown in the Markdown and LaTeX files.
        folder: folder of the tables.
    """
    return formats.write(folder / "comparisons", table, markdown(table, spec), latex(table, spec))
