"""Tables over the seeds as Markdown and LaTeX: one per comparison, a row per method, columns by checkpoint and metric.

The functions take tables in tidy form: one row per teacher, student, method, checkpoint and metric, with the columns
n_seeds, n_images, mean and sd.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from robust_distillation.columns import CHECKPOINT, METHOD, METRIC, STUDENT, TEACHER_ROW
from robust_distillation.comparison import Comparison
from robust_distillation.files import write_text
from robust_distillation.reporting.table_spec import TableSpec

LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "^": r"\^{}",
    "~": r"\~{}",
    "_": r"\_",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "|": r"$|$",
    "±": r"$\pm$",
    "φ": r"$\varphi$",
    "−": "$-$",
}


class Block(NamedTuple):
    """The table of one comparison.

    Attributes:
        comparison: the students and their teacher.
        cells: text; rows are methods, columns (checkpoint, metric).
    """

    comparison: Comparison
    cells: pd.DataFrame


def teacher_labels(rows: pd.DataFrame) -> pd.Series:
    """Returns the labels of teachers' own rows: what trained them, and their checkpoint."""
    return "teacher (" + rows[METHOD] + ", " + rows[CHECKPOINT] + ")"


def mean_sd(mean: float, sd: float, number: Callable[[float], str] = "{:.2f}".format) -> str:
    """Returns `mean ± sd`, or `mean` if there is no standard deviation (NaN: one seed).

    Args:
        mean: over the seeds.
        sd: their standard deviation.
        number: text of a number; two decimals by default.
    """
    return number(mean) if pd.isna(sd) else f"{number(mean)} ± {number(sd)}"


def blocks(table: pd.DataFrame, spec: TableSpec, metrics: list[str], number: Callable[[float], str]) -> list[Block]:
    """Returns a table per comparison: the teacher's own row, then a row per method.

    Args:
        table: in tidy form.
        spec: comparisons, methods and checkpoints in their order.
        metrics: columns in their order.
        number: text of a number.
    """
    found = []
    for comparison in spec.comparisons:
        teacher = comparison.teacher_rows(table)
        label = teacher_labels(teacher)
        # The teacher has one checkpoint, which its label names: it stands in the first columns.
        teacher = teacher.assign(**{METHOD: label, CHECKPOINT: spec.first})
        rows = pd.concat([teacher, comparison.students(table)])
        rows["cell"] = [mean_sd(mean, sd, number) for mean, sd in zip(rows["mean"], rows["sd"], strict=True)]
        cells = rows.pivot_table("cell", METHOD, [CHECKPOINT, METRIC], aggfunc="first", sort=False)
        names = [name for name in dict.fromkeys([*label, *spec.methods]) if name in cells.index]
        columns = [(c, m) for c in spec.checkpoints for m in metrics if (c, m) in cells.columns]
        found.append(Block(comparison, cells.loc[names, columns].fillna("")))
    return found


def aggregate_label(table: pd.DataFrame) -> str:
    """Returns the meaning of a cell, for a caption: `mean ± sd over 3 seeds`, or `one seed`."""
    seeds = table.loc[table[STUDENT] != TEACHER_ROW, "n_seeds"]
    return seeds_label(seeds) if seeds.max() == 1 else f"mean ± sd over {seeds_label(seeds)}"


def seeds_label(seeds: pd.Series) -> str:
    """Returns numbers of seeds as text: `3 seeds`, `2 to 3 seeds` or `one seed`."""
    few, many = seeds.min(), seeds.max()
    return "one seed" if many == 1 else f"{many if few == many else f'{few} to {many}'} seeds"


def checkpoints_label(table: pd.DataFrame, spec: TableSpec) -> str:
    """Returns how the table's checkpoints were chosen, for a caption."""
    rules = {"best": spec.selection, "last": "after the last epoch"}
    return "; ".join(f"{name}: {rule}" for name, rule in rules.items() if name in set(table[CHECKPOINT]))


def markdown(caption: str, tables: list[Block], titles: dict[str, str]) -> str:
    """Returns the tables as Markdown.

    Args:
        caption: text above them.
        tables: one per comparison.
        titles: column heading by metric; a metric without one keeps its name.
    """
    parts = [caption]
    for comparison, cells in tables:
        flat = cells.set_axis([f"{titles.get(m, m)} ({c})" for c, m in cells.columns], axis=1)
        text = flat.to_markdown(colalign=["left", *["right"] * len(flat.columns)], disable_numparse=True)
        parts.append(f"**{comparison.label}**\n\n{text}")
    return "\n\n".join(parts) + "\n"


def latex(caption: str, tables: list[Block], titles: dict[str, str]) -> str:
    """Returns the tables as LaTeX (package booktabs).

    Args:
        caption: beginning of each caption.
        tables: one per comparison.
        titles: column heading by metric; a metric without one keeps its name.
    """
    parts = []
    for comparison, cells in tables:
        named = cells.rename(columns=lambda metric: escaped(titles.get(metric, metric)), level=METRIC)
        named = named.rename_axis(None).map(escaped).rename(index=escaped)
        named.columns.names = [None, None]
        parts.append(
            named.style.to_latex(
                hrules=True,
                multicol_align="c",
                column_format="l" + "r" * len(named.columns),
                caption=escaped(f"{caption} {comparison.label}."),
                position="t",
            )
        )
    return "\n".join(parts)


def write(stem: Path, table: pd.DataFrame, markdown: str, latex: str) -> list[Path]:
    """Writes STEM.csv, STEM.md and STEM.tex, and returns their paths.

    Args:
        stem: path without the ending.
        table: content of the CSV file.
        markdown: content of the Markdown file.
        latex: content of the LaTeX file.
    """
    texts = {"csv": table.to_csv(index=False), "md": markdown, "tex": latex}
    for kind, text in texts.items():
        write_text(stem.with_name(f"{stem.name}.{kind}"), text)
    return [stem.with_name(f"{stem.name}.{kind}") for kind in texts]


def longtable(caption: str, head: list[str], rows: list[list[str]], columns: str) -> str:
    """Returns rows of plain text as a table that may run over pages (packages longtable and booktabs).

    Styler.to_latex would repeat the whole caption on every page.

    Args:
        caption: plain text.
        head: titles of the C columns, repeated on every page.
        rows: C cells each.
        columns: LaTeX's column format.
    """
    written = [
        " & ".join(escaped(cell).replace("-", "$-$") if _signed(cell) else escaped(cell) for cell in row)
        for row in rows
    ]
    lines = [
        rf"\begin{{longtable}}{{{columns}}}", rf"\caption{{{escaped(caption)}}}\\", r"\toprule",
        " & ".join(map(escaped, head)) + r" \\", r"\midrule", r"\endhead", r"\bottomrule", r"\endfoot",
        *(rf"{row} \\" for row in written), r"\end{longtable}", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _signed(cell: str) -> bool:
    """Tells whether the hyphens of a cell are minus signs."""
    return cell[:1] in ("+", "-") and cell[1:2].isdigit()


def escaped(text: str) -> str:
    """Returns plain text as LaTeX."""
    return "".join(LATEX.get(character, character) for character in text)
