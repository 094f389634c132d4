"""Methods against each other: the table of paired comparisons, for programs whole, for people at the headline."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from tabulate import tabulate

from robust_distillation.reporting import formats
from robust_distillation.reporting.tables import Matrix, metric_title
from robust_distillation.statistics.comparing import Outcomes, comparisons
from robust_distillation.statistics.intervals import ALPHA

HEAD = ["method", "other", "difference", "simultaneous interval", "adjusted p"]
NONE = "No two methods share a seed."


def tidy(outcomes: Outcomes, matrix: Matrix) -> pd.DataFrame:
    """comparisons.csv: see statistics.comparing.comparisons."""
    table = comparisons(outcomes, matrix.pairs, matrix.methods, matrix.checkpoints, matrix.metrics)
    points, chances = ["difference", "ci_low", "ci_high"], ["p", "p_adjusted"]
    table[points] = table[points].astype(float).round(4) + 0.0  # + 0.0: never -0.0
    table[chances] = table[chances].map(lambda p: float(f"{p:.4g}"))
    return table


def caption(matrix: Matrix) -> str:
    return (
        f"{matrix.experiment}: accuracy of a method less that of another in points under "
        f"{metric_title(matrix.metrics[-1])}, at the checkpoint {matrix.checkpoints[0]}, on the same images and seeds; "
        f"{matrix.attacked}, {matrix.protocol} protocol. The intervals of a student hold at once with {1 - ALPHA:.0%} "
        f"(Bonferroni), and a * marks those that leave zero out: there the adjusted p is below {ALPHA}."
    )


def _blocks(table: pd.DataFrame, matrix: Matrix) -> list[tuple[str, list[list[str]]]]:
    """For each teacher and student a title and rows of HEAD at the headline."""
    shown = table[table["checkpoint"].eq(matrix.checkpoints[0]) & table["metric"].eq(matrix.metrics[-1])]
    found = []
    for teacher, student in matrix.pairs:
        rows = shown[shown["teacher"].eq(teacher) & shown["student"].eq(student)]
        if len(rows):
            about = (
                f"{len(rows)} comparisons, {formats.few_to_many(rows['n_seeds'])}, {rows['n_images'].iloc[0]} images"
            )
            title = f"Student {student}, teacher {teacher}: {about}"
            found.append((title, [_cells(row) for row in rows.itertuples()]))
    return found


def _cells(row: tuple) -> list[str]:
    apart = " *" if row.p_adjusted < ALPHA else ""
    interval = f"{row.ci_low:+.2f} to {row.ci_high:+.2f}{apart}"
    return [row.method, row.other, f"{row.difference:+.2f}", interval, f"{row.p_adjusted:.2g}"]


def markdown(table: pd.DataFrame, matrix: Matrix) -> str:
    parts = [caption(matrix)]
    for title, rows in _blocks(table, matrix):
        grid = tabulate(rows, HEAD, "pipe", disable_numparse=True, colalign=["left", "left", "right", "right", "right"])
        parts.append(f"**{title}**\n\n{grid}")
    return "\n\n".join(parts if len(parts) > 1 else [*parts, NONE]) + "\n"


def latex(table: pd.DataFrame, matrix: Matrix) -> str:
    """A longtable (the package of that name) per teacher and student."""
    made = [
        formats.longtable(f"{caption(matrix)} {title}.", HEAD, rows, "llrrr") for title, rows in _blocks(table, matrix)
    ]
    return "\n".join(made) or f"{formats.escaped(NONE)}\n"


def write_tables(table: pd.DataFrame, matrix: Matrix, folder: Path) -> list[Path]:
    """FOLDER/comparisons.{csv,md,tex}."""
    return formats.write(folder / "comparisons", table, markdown(table, matrix), latex(table, matrix))
