"""The comparison table, from outcomes only: tidy CSV for programs, Markdown and LaTeX for people."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from robust_distillation.config import NO_TEACHER
from robust_distillation.evaluation.outcomes import ITSELF
from robust_distillation.evaluation.statistics import summary

COLUMNS = [
    "teacher", "student", "method", "protocol", "checkpoint", "metric",
    "n_seeds", "n_images", "mean", "sd", "ci_low", "ci_high", "published",
]  # fmt: skip
TITLES = {"clean": "Clean", "fgsm": "FGSM", "pgd20": "PGD-20", "autoattack": "AutoAttack"}


@dataclass(frozen=True)
class Matrix:
    """What a table is about, and the order of its rows."""

    experiment: str
    protocol: str
    threat: str
    pairs: list[tuple[str, str]]  # (teacher, student) of each comparison
    methods: list[str]
    checkpoints: list[str]
    metrics: list[str]


def tidy(outcomes: pd.DataFrame, matrix: Matrix) -> pd.DataFrame:
    """main.csv: one row per teacher, student, method, checkpoint and metric, in percent; teachers come first, as
    student `-`. Runs that need no teacher stand once, under teacher `none`. `published` is empty where nothing was."""
    table = summary(outcomes).assign(protocol=matrix.protocol, published=None)
    order = {
        "teacher": [NO_TEACHER, *dict.fromkeys(teacher for teacher, _ in matrix.pairs)],
        "student": [ITSELF, *dict.fromkeys(student for _, student in matrix.pairs)],
        "method": matrix.methods,
        "checkpoint": matrix.checkpoints,
        "metric": matrix.metrics,
    }
    ranks = {key: {name: rank for rank, name in enumerate(names)} for key, names in order.items()}
    table = table.sort_values(list(order), key=lambda column: column.map(ranks[column.name]), kind="stable")
    table["own"] = table["student"] != ITSELF
    return table.sort_values("own", kind="stable", ignore_index=True)[COLUMNS].round(4)


def blocks(table: pd.DataFrame, matrix: Matrix) -> list[tuple[str, str, pd.DataFrame]]:
    """For each teacher and student the rows that compare: the teacher itself, and each method with this teacher or
    with none. Cells are `mean ± sd`, columns (checkpoint, metric); the teacher's one checkpoint, named in its label,
    stands in the first."""
    found = []
    for teacher, student in matrix.pairs:
        itself = table[(table["student"] == ITSELF) & (table["teacher"] == teacher)]
        names = "teacher (" + itself["method"] + ", " + itself["checkpoint"] + ")"
        itself = itself.assign(method=names, checkpoint=matrix.checkpoints[0])
        own = table[(table["student"] == student) & table["teacher"].isin([teacher, NO_TEACHER])]
        rows = pd.concat([itself, own])
        rows["cell"] = [_cell(*pair) for pair in zip(rows["mean"], rows["sd"], strict=True)]
        wide = rows.pivot_table("cell", "method", ["checkpoint", "metric"], aggfunc="first", sort=False)
        methods = [name for name in [*names, *matrix.methods] if name in wide.index]
        columns = [(c, m) for c in matrix.checkpoints for m in matrix.metrics if (c, m) in wide.columns]
        found.append((teacher, student, wide.loc[list(dict.fromkeys(methods)), columns].fillna("")))
    return found


def at_headline(outcomes: pd.DataFrame, matrix: Matrix) -> pd.DataFrame:
    """The rows that the headline speaks of: students at the first checkpoint, teachers at the one they teach from."""
    return outcomes[outcomes["checkpoint"].eq(matrix.checkpoints[0]) | outcomes["student"].eq(ITSELF)]


def _cell(mean: float, sd: float) -> str:
    return f"{mean:.2f}" if pd.isna(sd) else f"{mean:.2f} ± {sd:.2f}"


def caption(table: pd.DataFrame, matrix: Matrix) -> str:
    students = table[table["student"] != ITSELF]
    seeds, images = students["n_seeds"], students["n_images"].iloc[0]
    few, many = seeds.min(), seeds.max()
    spread = "one seed" if many == 1 else f"mean ± sd over {many if few == many else f'{few} to {many}'} seeds"
    return (
        f"{matrix.experiment}: accuracy in percent on {images} test images, {matrix.threat}, "
        f"{matrix.protocol} protocol; {spread}. best: chosen on the validation split; last: after the last epoch."
    )


def markdown(table: pd.DataFrame, matrix: Matrix) -> str:
    parts = [caption(table, matrix)]
    for teacher, student, wide in blocks(table, matrix):
        flat = wide.set_axis([f"{metric_title(m)} ({c})" for c, m in wide.columns], axis=1)
        shown = flat.to_markdown(colalign=["left", *["right"] * len(flat.columns)], disable_numparse=True)
        parts.append(f"**Student {student}, teacher {teacher}**\n\n{shown}")
    return "\n\n".join(parts) + "\n"


def metric_title(metric: str) -> str:
    return TITLES.get(metric, metric)


def latex(table: pd.DataFrame, matrix: Matrix) -> str:
    """A booktabs table per teacher and student."""
    parts = []
    for teacher, student, wide in blocks(table, matrix):
        named = wide.rename(columns=metric_title, level="metric").rename_axis(None)
        named.columns.names = [None, None]
        styled = named.map(lambda cell: str(cell).replace("±", r"$\pm$")).rename(index=_escaped).style
        parts.append(
            styled.to_latex(
                hrules=True,
                multicol_align="c",
                column_format="l" + "r" * len(named.columns),
                caption=_escaped(f"{caption(table, matrix)} Student {student}, teacher {teacher}.").replace(
                    "±", r"$\pm$"
                ),
                position="t",
            )
        )
    return "\n".join(parts)


def _escaped(text: str) -> str:
    return text.replace("_", r"\_").replace("%", r"\%").replace("&", r"\&")


def headline(table: pd.DataFrame, matrix: Matrix) -> dict[tuple[str, str, str], dict[str, float]]:
    """The numbers to watch, by teacher, student and method: clean accuracy and that under the strongest attack."""
    found: dict = {}
    rows = at_headline(table, matrix)
    for row in rows[rows["metric"].isin(["clean", matrix.metrics[-1]])].itertuples():
        found.setdefault((row.teacher, row.student, row.method), {})[row.metric] = round(row.mean, 2)
    return found
