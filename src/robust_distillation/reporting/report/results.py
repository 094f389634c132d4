"""The tables of results: ours beside published ones, and the analyses'. Every number leads to its story."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from robust_distillation.columns import ITSELF, NO_TEACHER
from robust_distillation.reporting import formats, structure, tables, transfer
from robust_distillation.reporting.report.elements import Cell, Group, Head, Section, Table, Text, anchor, of_pair
from robust_distillation.reporting.report.report_data import Material
from robust_distillation.reporting.tables import metric_title


def section(material: Material) -> Section:
    """The whole matrix, and the tables that the experiment names."""
    views = {"": tables.View(material.table, material.matrix, "")}
    views |= tables.named_tables(material.table, material.matrix)
    groups = []
    for view in views.values():
        for teacher, student in view.matrix.pairs:
            title = of_pair(teacher, student)
            groups.append(
                Group(f"{view.title}: {title}" if view.title else title, [_beside_published(view, teacher, student)])
            )
        if sentences := tables.legend(view.table, view.matrix):
            groups.append(Group("", [Text(sentences)]))
    return Section(
        "results", "Results",
        "Accuracy in percent, mean ± standard deviation over the seeds. A click on a column's head sorts by it; every "
        "number leads to its story: values per seed, interval, files and the record of what made them.",
        groups,
    )  # fmt: skip


def _beside_published(view: tables.View, teacher: str, student: str) -> Table:
    """A row per method and checkpoint; for each metric ours and, where it was published, that and the difference."""
    rows = of_comparison(view.table, teacher, student)
    metrics = [metric for metric in view.matrix.metrics if metric in set(rows["metric"])]
    beside = {metric for metric in metrics if rows.loc[rows["metric"] == metric, "published"].notna().any()}
    first, second = [Head("Method", rows=2, number=False), Head("Checkpoint", rows=2, number=False)], []
    for metric in metrics:
        wide = 3 if metric in beside else 1
        first.append(Head(metric_title(metric), wide, 1 if beside and wide > 1 else 2))
        second += [Head(name) for name in ("ours", "published", "difference")] if wide > 1 else []
    heads = [first, second] if second else [[Head(head.text, number=head.number) for head in first]]
    lines = []
    for method, checkpoint, group in _lines(rows, view.matrix):
        line = [Cell(method), Cell(checkpoint)]
        for metric in metrics:
            of = group[group["metric"] == metric]
            row = next(of.itertuples(), None)
            line += _cells(row, metric in beside)
        lines.append(line)
    caption = tables.caption(rows, view.matrix)
    return Table(f"{of_pair(teacher, student)}. {caption}", heads, lines, texts=2)


def _lines(rows: pd.DataFrame, matrix: tables.Matrix):
    """Label, checkpoint and rows of each line, the teacher first."""
    itself = rows[rows["student"] == ITSELF]
    for (method, checkpoint), group in itself.groupby(["method", "checkpoint"], sort=False):
        yield f"teacher ({method})", checkpoint, group
    own = rows[rows["student"] != ITSELF]
    for checkpoint in matrix.checkpoints:
        for method in matrix.methods:
            group = own[own["method"].eq(method) & own["checkpoint"].eq(checkpoint)]
            if len(group):
                yield method, checkpoint, group


def _cells(row, beside: bool) -> list[Cell]:
    if row is None:
        return [Cell("")] * (3 if beside else 1)
    ours = Cell(spread(row.mean, row.sd), row.mean, cell_of(row))
    if not beside:
        return [ours]
    if pd.isna(row.published):
        return [ours, Cell(""), Cell("")]
    return [
        ours,
        Cell(f"{row.published:.2f} {row.mark}", row.published),
        Cell(f"{row.difference:+.2f}", row.difference),
    ]


def of_comparison(table: pd.DataFrame, teacher: str, student: str) -> pd.DataFrame:
    """The rows that compare: the teacher itself, what it taught the student, and what the student learnt alone."""
    itself = table["student"].eq(ITSELF) & table["teacher"].eq(teacher)
    own = table["student"].eq(student) & table["teacher"].isin([teacher, NO_TEACHER])
    return table[itself | own]


def spread(mean: float, sd: float, form: Callable[[float], str] = "{:.2f}".format) -> str:
    return form(mean) if pd.isna(sd) else f"{form(mean)} ± {form(sd)}"


def cell_of(row) -> str:
    """The id of a number's line in its story."""
    return anchor(row.teacher, row.student, row.method, row.checkpoint, row.metric)


def structures(material: Material) -> Section | None:
    """Class correlations and feature distances."""
    if "structure" not in material.tables:
        return None
    table = material.tables["structure"]
    lead = (
        "How alike a student's picture of the classes is to its teacher's, and how far an attack moves its features: "
        "smaller is closer to the teacher, and more robust."
    )
    note = Group("", [Text([structure.caption(table, material.matrix)])])
    groups = _analysed(table, material.matrix, structure.TITLES, "{:.3f}".format)
    return Section("structure", "Structure and features", lead, [*groups, note])


def transfers(material: Material) -> Section | None:
    """Accuracies on other tasks."""
    groups: list[Group] = []
    for target in material.experiment.file.transfer:
        table = material.tables[f"transfer-{target}"]
        titles = {metric: metric_title(metric) for metric in dict.fromkeys(table["metric"])}
        groups += _analysed(table, material.matrix, titles, "{:.2f}".format, f"To {target}: ")
        groups.append(Group("", [Text([transfer.caption(table, material.matrix)])]))
    lead = (
        "Does robustness come along to another task? The backbones stay as they are, a linear head is trained on "
        "each, and both are attacked together."
    )
    return Section("transfer", "Transfer to other tasks", lead, groups) if groups else None


def _analysed(
    table: pd.DataFrame, matrix: tables.Matrix, titles: dict[str, str], form: Callable[[float], str], before: str = ""
) -> list[Group]:
    """A table per comparison: a row per method and checkpoint."""
    metrics = [metric for metric in titles if metric in set(table["metric"])]
    groups = []
    for teacher, student in matrix.pairs:
        rows = of_comparison(table, teacher, student)
        lines = []
        for method, checkpoint, group in _lines(rows, matrix):
            found = {row.metric: row for row in group.itertuples()}
            cells = [
                Cell(spread(found[m].mean, found[m].sd, form), found[m].mean) if m in found else Cell("")
                for m in metrics
            ]
            lines.append([Cell(method), Cell(checkpoint), *cells])
        heads = [Head("Method", number=False), Head("Checkpoint", number=False), *(Head(titles[m]) for m in metrics)]
        caption = f"{before}{of_pair(teacher, student)}; {formats.over_seeds(rows)}."
        groups.append(Group(f"{before}{of_pair(teacher, student)}", [Table(caption, [heads], lines, texts=2)]))
    return groups
