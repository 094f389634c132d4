"""Formats tables over the seeds as Markdown and LaTeX: one table per comparison of methods.

A table has a row per method, and columns by checkpoint and metric. The functions take tables in tidy form: one row per
teacher, student, method, checkpoint and metric, with the columns of these names and n_seeds, n_images, mean and sd.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from robust_distillation.columns import CHECKPOINT, METHOD, METRIC, STUDENT, TEACHER_ROW
from robust_distillation.comparison import Comparison
from robust_distillation.files import write_text
from robust_distillation.reporting.table_spec import TableSpec, number_of

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
    "↓": r"$\downarrow$",
}


class Block(NamedTuple):
    """The table of one teacher and student, in which distillation methods are compared, as texts.
    `reporting.formats.blocks` makes it.

    Attributes:
        comparison: names of the teacher and the student network, such as `Comparison(teacher="wide", student="small")`.
        cells: texts such as `53.20 ± 0.41`; "" for a missing number. The index has the names of the rows: `teacher
            (trades, best)` first, then the methods. The columns are pairs (checkpoint, metric), such as ("best",
            "autoattack").
    """

    comparison: Comparison
    cells: pd.DataFrame


def teacher_labels(rows: pd.DataFrame) -> pd.Series:
    """Returns the names of teachers' rows in tables, such as `teacher (trades, best)`.

    Args:
        rows: rows about teachers. Used columns: `method` (the method that trained the teacher, or the source of its
            imported weights) and `checkpoint`.

    Returns:
        One text per row, with the index of `rows`.
    """
    return "teacher (" + rows[METHOD] + ", " + rows[CHECKPOINT] + ")"


def mean_sd(mean: float, sd: float, number: Callable[[float], str] = "{:.2f}".format) -> str:
    """Formats a mean and a standard deviation as `mean ± sd`, for example `53.20 ± 0.41`.

    Args:
        mean: mean over the seeds.
        sd: standard deviation over the seeds. NaN for one seed: the text is then the mean alone, `53.20`.
        number: function that formats a number as text. The default writes two decimals.
    """
    return number(mean) if pd.isna(sd) else f"{number(mean)} ± {number(sd)}"


def blocks(
    table: pd.DataFrame, spec: TableSpec, metrics: list[str], number: Callable[[float], str] | None = None
) -> list[Block]:
    """Makes one table of texts `mean ± sd` for each teacher and student: a row for the teacher, then a row per method.

    The teacher has one checkpoint, which the name of its row states, such as `teacher (trades, best)`. Its numbers
    stand in the columns of the first checkpoint of the students.

    Args:
        table: means over the seeds, one row per teacher, student, method, checkpoint and metric, such as
            tables/main.csv. Used columns: `teacher`, `student` (`-` in a row about a teacher), `method`, `checkpoint`,
            `metric`, `mean` and `sd` (NaN for one seed).
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are `comparisons` (pairs of teacher and student, one table for each),
            `methods` (order of the rows) and `checkpoints` (order of the columns).
        metrics: metrics of the columns within each checkpoint, in their order, such as `["clean", "autoattack"]`. A
            pair of checkpoint and metric without a number has no column.
        number: function that formats a number as text, such as `"{:.2f}".format`. None: two decimals for a metric in
            percent, three for a metric that is a fraction (`reporting.table_spec.number_of`).

    Returns:
        The tables as `Block(comparison, cells)`, in the order of `spec.comparisons`: `cells` is a DataFrame of texts
        such as `53.20 ± 0.41`, and "" for a missing number.
    """
    found = []
    for comparison in spec.comparisons:
        teacher = comparison.teacher_rows(table)
        label = teacher_labels(teacher)
        # The teacher has one checkpoint, which its label names: it stands in the first columns.
        teacher = teacher.assign(**{METHOD: label, CHECKPOINT: spec.first})
        rows = pd.concat([teacher, comparison.students(table)])
        rows["cell"] = [mean_sd(row.mean, row.sd, number or number_of(row.metric)) for row in rows.itertuples()]
        cells = rows.pivot_table("cell", METHOD, [CHECKPOINT, METRIC], aggfunc="first", sort=False)
        names = [name for name in dict.fromkeys([*label, *spec.methods]) if name in cells.index]
        columns = [(c, m) for c in spec.checkpoints for m in metrics if (c, m) in cells.columns]
        found.append(Block(comparison, cells.loc[names, columns].fillna("")))
    return found


def aggregate_label(table: pd.DataFrame) -> str:
    """Describes the cells of a table for its caption: `mean ± sd over 3 seeds`, `mean ± sd over 2 to 3 seeds` or `one
    seed`.

    Args:
        table: means over the seeds, such as tables/main.csv, with at least one row about a student. Used columns:
            `student` and `n_seeds`. Rows about teachers (student `-`) are ignored.
    """
    seeds = table.loc[table[STUDENT] != TEACHER_ROW, "n_seeds"]
    return seeds_label(seeds) if seeds.max() == 1 else f"mean ± sd over {seeds_label(seeds)}"


def seeds_label(seeds: pd.Series) -> str:
    """Formats numbers of seeds as text: `3 seeds`, `2 to 3 seeds` or `one seed`.

    Args:
        seeds: numbers of seeds, at least one number. The text names the smallest and the largest.
    """
    few, many = seeds.min(), seeds.max()
    return "one seed" if many == 1 else f"{many if few == many else f'{few} to {many}'} seeds"


def checkpoints_label(table: pd.DataFrame, spec: TableSpec) -> str:
    """Describes how the checkpoints in a table were chosen, for its caption.

    An example is `best: chosen on the validation split; last: after the last epoch`.

    Args:
        table: any table with the column `checkpoint`. Only those of `best` and `last` that occur in it are described.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used is `selection`, the text on how `best` was chosen.
    """
    rules = {"best": spec.selection, "last": "after the last epoch"}
    return "; ".join(f"{name}: {rule}" for name, rule in rules.items() if name in set(table[CHECKPOINT]))


def markdown(caption: str, tables: list[Block], titles: dict[str, str]) -> str:
    """Returns tables as one Markdown text, each table under a line such as `**Student small, teacher wide**`.

    Args:
        caption: text above all tables, plain or Markdown. No text is escaped.
        tables: the tables, as `reporting.tables.blocks` or `reporting.formats.blocks` returns them. Each has
            `comparison` (names of teacher and student) and `cells` (DataFrame of texts; the columns are pairs
            (checkpoint, metric)).
        titles: name of a metric to its column heading, such as `{"pgd20": "PGD-20"}`. A metric without an entry is
            shown by its name. The checkpoint follows in parentheses: `PGD-20 (best)`.
    """
    parts = [caption]
    for comparison, cells in tables:
        flat = cells.set_axis([f"{titles.get(m, m)} ({c})" for c, m in cells.columns], axis=1)
        text = flat.to_markdown(colalign=["left", *["right"] * len(flat.columns)], disable_numparse=True)
        parts.append(f"**{comparison.label}**\n\n{text}")
    return "\n\n".join(parts) + "\n"


def latex(caption: str, tables: list[Block], titles: dict[str, str]) -> str:
    """Returns tables as one LaTeX text (package booktabs), with one `table` environment for each teacher and student.

    Args:
        caption: beginning of each caption as plain text. All texts are escaped here. A text such as `Student small,
            teacher wide.` follows.
        tables: the tables, as `reporting.tables.blocks` or `reporting.formats.blocks` returns them. Each has
            `comparison` (names of teacher and student) and `cells` (DataFrame of texts; the columns are pairs
            (checkpoint, metric)).
        titles: name of a metric to its column heading as plain text, such as `{"pgd20": "PGD-20"}`. A metric without an
            entry is shown by its name.
    """
    parts = []
    for comparison, cells in tables:
        named = cells.rename(columns=lambda metric: escaped(titles.get(metric, metric)), level=METRIC)
        named = named.rename_axis(None).map(lambda text: re.sub("^-", "$-$", escaped(text))).rename(index=escaped)
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
    """Writes a table as STEM.csv, STEM.md and STEM.tex. A missing folder is created, and existing files are replaced.

    Args:
        stem: path without the ending, such as results/digits/tables/main.
        table: content of the CSV file; its index is not written.
        markdown: content of the Markdown file, such as `reporting.formats.markdown` returns it.
        latex: content of the LaTeX file, such as `reporting.formats.latex` returns it.

    Returns:
        The three paths, in this order.
    """
    texts = {"csv": table.to_csv(index=False), "md": markdown, "tex": latex}
    for kind, text in texts.items():
        write_text(stem.with_name(f"{stem.name}.{kind}"), text)
    return [stem.with_name(f"{stem.name}.{kind}") for kind in texts]


def longtable(caption: str, head: list[str], rows: list[list[str]], columns: str) -> str:
    r"""Formats rows of plain text as a LaTeX table that may run over pages (packages longtable and booktabs). All texts
    but `columns` are escaped here.

    It is used in place of pandas' Styler.to_latex, which would repeat the whole caption on every page.

    Args:
        caption: caption above the table as plain text.
        head: titles of the C columns as plain text, repeated on every page.
        rows: C cells of plain text for each row. In a cell that begins with a signed number, such as `-0.50 to +2.90`,
            hyphens become minus signs.
        columns: LaTeX's column format, such as `llrrr`.

    Returns:
        LaTeX from `\begin{longtable}` to `\end{longtable}`.
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
    r"""Escapes LaTeX's special characters in a text, for example `a_b` to `a\_b`.

    Args:
        text: plain text.
    """
    return "".join(LATEX.get(character, character) for character in text)
