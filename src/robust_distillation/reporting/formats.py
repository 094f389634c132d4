"""Formats tables over the seeds as Markdown and LaTeX: one table per comparison of methods.

A table has a row per method, and columns by checkpoint and metric. The functions take tables in tidy form: one row per
teacher, student, method, checkpoint and metric, with the columns of these names and n_seeds, n_images, mean and sd.
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
    """The table of one comparison: of the methods for one student with one teacher.

    Attributes:
        comparison: names of the student and the teacher.
        cells: texts, for example `53.20 ± 0.41`; "" for a missing one. Rows are methods, the teacher's own row first;
            columns are pairs (checkpoint, metric).
    """

    comparison: Comparison
    cells: pd.DataFrame


def teacher_labels(rows: pd.DataFrame) -> pd.Series:
    """Returns the labels of teachers' own rows, for example `teacher (trades, best)`.

    Args:
        rows: rows of teachers, with the columns `method` (what trained the teacher, or the source of its weights) and
            `checkpoint`.

    Returns:
        Texts with the index of `rows`.
    """
    return "teacher (" + rows[METHOD] + ", " + rows[CHECKPOINT] + ")"


def mean_sd(mean: float, sd: float, number: Callable[[float], str] = "{:.2f}".format) -> str:
    """Returns `mean ± sd`, for example `53.20 ± 0.41`, or `mean` alone if there is no standard deviation.

    Args:
        mean: mean over the seeds.
        sd: standard deviation over the seeds; NaN for one seed.
        number: formats a number; by default with two decimals.
    """
    return number(mean) if pd.isna(sd) else f"{number(mean)} ± {number(sd)}"


def blocks(table: pd.DataFrame, spec: TableSpec, metrics: list[str], number: Callable[[float], str]) -> list[Block]:
    """Makes a table of texts `mean ± sd` for each comparison: the teacher's own row, then a row per method.

    The teacher has one checkpoint, which the label of its row names. Its numbers stand in the columns of the first
    checkpoint.

    Args:
        table: table in tidy form, with the columns `teacher`, `student`, `method`, `checkpoint`, `metric`, `mean` and
            `sd`.
        spec: comparisons, methods and checkpoints in their order.
        metrics: metrics of the columns in their order. Those without a row are left out.
        number: formats a number.
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
    """Returns what a cell of a table is, for a caption: `mean ± sd over 3 seeds`, or `one seed`.

    Args:
        table: table with the columns `student` and `n_seeds`. Teachers' own rows (student `-`) are not counted.
    """
    seeds = table.loc[table[STUDENT] != TEACHER_ROW, "n_seeds"]
    return seeds_label(seeds) if seeds.max() == 1 else f"mean ± sd over {seeds_label(seeds)}"


def seeds_label(seeds: pd.Series) -> str:
    """Returns numbers of seeds as text: `3 seeds`, `2 to 3 seeds` or `one seed`.

    Args:
        seeds: numbers of seeds, at least one number.
    """
    few, many = seeds.min(), seeds.max()
    return "one seed" if many == 1 else f"{many if few == many else f'{few} to {many}'} seeds"


def checkpoints_label(table: pd.DataFrame, spec: TableSpec) -> str:
    """Returns the rules by which a table's checkpoints were chosen, for a caption.

    An example is `best: chosen on the validation split; last: after the last epoch`.

    Args:
        table: table with the column `checkpoint`. Only those of `best` and `last` that occur in it are named.
        spec: the rule by which `best` was chosen.
    """
    rules = {"best": spec.selection, "last": "after the last epoch"}
    return "; ".join(f"{name}: {rule}" for name, rule in rules.items() if name in set(table[CHECKPOINT]))


def markdown(caption: str, tables: list[Block], titles: dict[str, str]) -> str:
    """Returns tables as Markdown, each under the name of its comparison (student and teacher).

    Args:
        caption: text above all tables.
        tables: one table per comparison.
        titles: metric to its column heading. A metric that is not in it keeps its name.
    """
    parts = [caption]
    for comparison, cells in tables:
        flat = cells.set_axis([f"{titles.get(m, m)} ({c})" for c, m in cells.columns], axis=1)
        text = flat.to_markdown(colalign=["left", *["right"] * len(flat.columns)], disable_numparse=True)
        parts.append(f"**{comparison.label}**\n\n{text}")
    return "\n\n".join(parts) + "\n"


def latex(caption: str, tables: list[Block], titles: dict[str, str]) -> str:
    """Returns tables as LaTeX (package booktabs), one `table` environment for each.

    Args:
        caption: beginning of each caption, plain text; the name of the comparison (student and teacher) follows.
        tables: one table per comparison.
        titles: metric to its column heading. A metric that is not in it keeps its name.
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
    """Writes STEM.csv, STEM.md and STEM.tex, creating the folder if needed, and returns their paths in this order.

    Args:
        stem: path without the ending, for example results/digits/tables/main.
        table: content of the CSV file; its index is not written.
        markdown: content of the Markdown file.
        latex: content of the LaTeX file.
    """
    texts = {"csv": table.to_csv(index=False), "md": markdown, "tex": latex}
    for kind, text in texts.items():
        write_text(stem.with_name(f"{stem.name}.{kind}"), text)
    return [stem.with_name(f"{stem.name}.{kind}") for kind in texts]


def longtable(caption: str, head: list[str], rows: list[list[str]], columns: str) -> str:
    """Returns rows of plain text as a LaTeX table that may run over pages (packages longtable and booktabs).

    It is used in place of pandas' Styler.to_latex, which would repeat the whole caption on every page.

    Args:
        caption: plain text.
        head: titles of the C columns as plain text, repeated on every page.
        rows: C cells of plain text for each row. In a cell that begins with a signed number, hyphens become minus
            signs.
        columns: LaTeX's column format, for example `llrrr`.
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
    r"""Returns text with LaTeX's special characters replaced, for example `a_b` as `a\_b`.

    Args:
        text: plain text.
    """
    return "".join(LATEX.get(character, character) for character in text)
