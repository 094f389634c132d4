"""The table of differences between methods: as CSV all of them, for people those at the headline."""

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
    """Returns comparisons.csv: see evaluation.comparing.comparisons."""
    table = comparisons(outcomes, spec.comparisons, spec.methods, spec.checkpoints, spec.metrics)
    points, chances = ["difference", "ci_low", "ci_high"], ["p", "p_adjusted"]
    table[points] = table[points].astype(float).round(4) + 0.0  # + 0.0: never -0.0
    table[chances] = table[chances].map(lambda p: float(f"{p:.4g}"))
    return table


def caption(spec: TableSpec) -> str:
    """Returns the caption of the table in its files."""
    return (
        f"{spec.experiment}: accuracy of a method less that of another in points under "
        f"{metric_title(spec.strongest)}, at the checkpoint {spec.first}, on the same images and seeds; "
        f"{spec.attacked}, {spec.protocol} protocol. The intervals of a student hold at once with {1 - ALPHA:.0%} "
        f"(Bonferroni), and a * marks those that leave zero out: there the adjusted p is below {ALPHA}."
    )


def at_headline(table: pd.DataFrame, spec: TableSpec) -> list[tuple[Comparison, pd.DataFrame]]:
    """Returns the rows of comparisons.csv at the headline's checkpoint and metric, by comparison.

    A comparison in which no two methods share a seed is left out.
    """
    rows = table[table[CHECKPOINT].eq(spec.first) & table[METRIC].eq(spec.strongest)]
    return [(comparison, own) for comparison in spec.comparisons if len(own := comparison.own(rows))]


def title(comparison: Comparison, rows: pd.DataFrame) -> str:
    """Returns the heading of a comparison's rows."""
    seeds, images = formats.seeds_label(rows["n_seeds"]), rows["n_images"].iloc[0]
    return f"{comparison.label}: {len(rows)} comparisons, {seeds}, {images} images"


def _cells(row: tuple) -> list[str]:
    apart = " *" if row.p_adjusted < ALPHA else ""
    interval = f"{row.ci_low:+.2f} to {row.ci_high:+.2f}{apart}"
    return [row.method, row.other, f"{row.difference:+.2f}", interval, f"{row.p_adjusted:.2g}"]


def markdown(table: pd.DataFrame, spec: TableSpec) -> str:
    """Returns a table per comparison."""
    parts = [caption(spec)]
    for comparison, rows in at_headline(table, spec):
        aligned = ["left", "left", "right", "right", "right"]
        grid = tabulate(
            [_cells(row) for row in rows.itertuples()], HEAD, "pipe", disable_numparse=True, colalign=aligned
        )
        parts.append(f"**{title(comparison, rows)}**\n\n{grid}")
    return "\n\n".join(parts if len(parts) > 1 else [*parts, NONE]) + "\n"


def latex(table: pd.DataFrame, spec: TableSpec) -> str:
    """Returns a table per comparison that may run over pages."""
    made = []
    for comparison, rows in at_headline(table, spec):
        cells = [_cells(row) for row in rows.itertuples()]
        made.append(formats.longtable(f"{caption(spec)} {title(comparison, rows)}.", HEAD, cells, "llrrr"))
    return "\n".join(made) or f"{formats.escaped(NONE)}\n"


def write_tables(table: pd.DataFrame, spec: TableSpec, folder: Path) -> list[Path]:
    """Writes FOLDER/comparisons.{csv,md,tex}, and returns their paths.

    Args:
        table: as `tidy` returns it.
        spec: the comparisons, and the headline's checkpoint and metric.
        folder: of the tables.
    """
    return formats.write(folder / "comparisons", table, markdown(table, spec), latex(table, spec))
