"""A comparison as people read it: a table per teacher and student, the teacher itself first and then a row per method,
a column per checkpoint and metric, in Markdown and in LaTeX.

The tables shown are tidy: teacher, student, method, checkpoint, metric, n_seeds, n_images, mean, sd.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from robust_distillation.columns import ITSELF, NO_TEACHER
from robust_distillation.files import write_text

if TYPE_CHECKING:
    from robust_distillation.reporting.tables import Matrix

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
    teacher: str
    student: str
    cells: pd.DataFrame  # text; rows are methods, columns (checkpoint, metric)


def ordered(table: pd.DataFrame, matrix: Matrix, metrics: Iterable[str]) -> pd.DataFrame:
    """The rows of a tidy table in the matrix's order, teachers themselves first."""
    order = {
        "own": [False, True],
        "teacher": [NO_TEACHER, *dict.fromkeys(teacher for teacher, _ in matrix.pairs)],
        "student": [ITSELF, *dict.fromkeys(student for _, student in matrix.pairs)],
        "method": matrix.methods,
        "checkpoint": matrix.checkpoints,
        "metric": metrics,
    }
    ranks = {key: {name: rank for rank, name in enumerate(names)} for key, names in order.items()}
    ranked = table.assign(own=table["student"] != ITSELF).sort_values(
        list(order), key=lambda column: column.map(ranks[column.name]), kind="stable", ignore_index=True
    )
    return ranked.drop(columns="own")


def blocks(table: pd.DataFrame, matrix: Matrix, metrics: list[str], cell: Callable[[float], str]) -> list[Block]:
    """For each teacher and student the teacher itself, and each method with this teacher or with none. Cells are
    `mean ± sd`, or `mean` where there is one seed, numbers as `cell` writes them; the teacher's one checkpoint, named
    in its label, stands in the first."""
    found = []
    for teacher, student in matrix.pairs:
        itself = table[table["student"].eq(ITSELF) & table["teacher"].eq(teacher)]
        label = "teacher (" + itself["method"] + ", " + itself["checkpoint"] + ")"
        itself = itself.assign(method=label, checkpoint=matrix.checkpoints[0])
        own = table[table["student"].eq(student) & table["teacher"].isin([teacher, NO_TEACHER])]
        rows = pd.concat([itself, own])
        rows["cell"] = [
            cell(mean) if pd.isna(sd) else f"{cell(mean)} ± {cell(sd)}"
            for mean, sd in zip(rows["mean"], rows["sd"], strict=True)
        ]
        cells = rows.pivot_table("cell", "method", ["checkpoint", "metric"], aggfunc="first", sort=False)
        names = [name for name in dict.fromkeys([*label, *matrix.methods]) if name in cells.index]
        columns = [(c, m) for c in matrix.checkpoints for m in metrics if (c, m) in cells.columns]
        found.append(Block(teacher, student, cells.loc[names, columns].fillna("")))
    return found


def over_seeds(table: pd.DataFrame) -> str:
    """What a cell is, for a caption."""
    seeds = table.loc[table["student"] != ITSELF, "n_seeds"]
    return few_to_many(seeds) if seeds.max() == 1 else f"mean ± sd over {few_to_many(seeds)}"


def few_to_many(seeds: pd.Series) -> str:
    """3 seeds, 2 to 3 seeds, one seed."""
    few, many = seeds.min(), seeds.max()
    return "one seed" if many == 1 else f"{many if few == many else f'{few} to {many}'} seeds"


def checkpoints(table: pd.DataFrame, matrix: Matrix) -> str:
    """How those that occur were chosen, for a caption."""
    rules = {"best": matrix.selection, "last": "after the last epoch"}
    return "; ".join(f"{name}: {rule}" for name, rule in rules.items() if name in set(table["checkpoint"]))


def markdown(caption: str, shown: list[Block], titles: dict[str, str]) -> str:
    """`titles` names the metrics; one that it does not have keeps its own name."""
    parts = [caption]
    for teacher, student, cells in shown:
        flat = cells.set_axis([f"{titles.get(m, m)} ({c})" for c, m in cells.columns], axis=1)
        text = flat.to_markdown(colalign=["left", *["right"] * len(flat.columns)], disable_numparse=True)
        parts.append(f"**Student {student}, teacher {teacher}**\n\n{text}")
    return "\n\n".join(parts) + "\n"


def latex(caption: str, shown: list[Block], titles: dict[str, str]) -> str:
    """A booktabs table per teacher and student."""
    parts = []
    for teacher, student, cells in shown:
        named = cells.rename(columns=lambda metric: escaped(titles.get(metric, metric)), level="metric")
        named = named.rename_axis(None).map(escaped).rename(index=escaped)
        named.columns.names = [None, None]
        parts.append(
            named.style.to_latex(
                hrules=True,
                multicol_align="c",
                column_format="l" + "r" * len(named.columns),
                caption=escaped(f"{caption} Student {student}, teacher {teacher}."),
                position="t",
            )
        )
    return "\n".join(parts)


def write(stem: Path, table: pd.DataFrame, markdown: str, latex: str) -> list[Path]:
    """STEM.csv, STEM.md and STEM.tex."""
    texts = {"csv": table.to_csv(index=False), "md": markdown, "tex": latex}
    for kind, text in texts.items():
        write_text(stem.with_name(f"{stem.name}.{kind}"), text)
    return [stem.with_name(f"{stem.name}.{kind}") for kind in texts]


def longtable(caption: str, head: list[str], rows: list[list[str]], columns: str) -> str:
    """Rows of plain text as a table that may run over pages."""
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
    """Whether its hyphens are minus signs."""
    return cell[:1] in ("+", "-") and cell[1:2].isdigit()


def escaped(text: str) -> str:
    """Plain text as LaTeX."""
    return "".join(LATEX.get(character, character) for character in text)
