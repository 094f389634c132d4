"""The tables of results: measured beside published accuracies, and the tables of the analyses."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from robust_distillation.columns import CHECKPOINT, METHOD, METRIC, STUDENT, TEACHER_ROW
from robust_distillation.comparison import Comparison
from robust_distillation.reporting import formats, structure, tables, transfer
from robust_distillation.reporting.figures.structure import correlations, feature_distances
from robust_distillation.reporting.figures.transfer import transfer as transfer_figure
from robust_distillation.reporting.report.elements import Cell, Group, Head, Section, Table, Text, anchor
from robust_distillation.reporting.report.report_data import ReportData
from robust_distillation.reporting.table_spec import TableSpec, heading, metric_title, number_of


def section(report: ReportData) -> Section:
    """Makes the report's section with the mean accuracies and further metrics of all teachers and distillation methods,
    beside published accuracies.

    It contains one table of accuracies for each teacher and student, with a row for each method and checkpoint, and one
    of further metrics if there are any: first of the whole tables/main.csv, then of each part that the experiment file
    names under `tables`. Each measured number is a link to its row in the section on lineage, the chain of records
    behind a number.

    Args:
        report: data of the experiment, as `reporting.report.report_data.load_report_data(experiment)` returns them.
            Used are `table` (the main table) and `spec` (contents and order of the tables).

    Returns:
        A `Section` with the `id` `results`, a `title`, a `lead` (introduction) and `groups` (tables, figures and other
        elements), which `reporting.report.page.page` renders as HTML.
    """
    views = {"": tables.View(report.table, report.spec, "")}
    views |= tables.named_tables(report.table, report.spec)
    groups = []
    for view in views.values():
        for comparison in view.spec.comparisons:
            title = f"{view.title}: {comparison.label}" if view.title else comparison.label
            columns = [names for names in (view.spec.metrics, view.spec.further) if _present(names, comparison, view)]
            groups.append(Group(title, [_beside_published(view, comparison, names) for names in columns]))
        if sentences := tables.legend(view.table, view.spec):
            groups.append(Group("", [Text(sentences)]))
    return Section(
        "results", "Results",
        "Accuracy in percent, mean ± standard deviation over the seeds. A click on a column's head sorts by it; every "
        "number leads to its lineage: values per seed, interval, files and the record of what made them.",
        groups,
    )  # fmt: skip


def _present(names: list[str], comparison: Comparison, view: tables.View) -> list[str]:
    """Returns those of the metrics that occur in the rows of a comparison."""
    return [metric for metric in names if metric in set(comparison.rows(view.table)[METRIC])]


def _beside_published(view: tables.View, comparison: Comparison, names: list[str]) -> Table:
    """Returns a row per method and checkpoint: for each metric our number and, if known, the published one.

    Args:
        view: a table of results.
        comparison: the students, and their teacher.
        names: the metrics to show, in their order; at least one occurs.
    """
    rows, metrics = comparison.rows(view.table), _present(names, comparison, view)
    rows = rows[rows[METRIC].isin(metrics)]
    beside = {metric for metric in metrics if rows.loc[rows[METRIC] == metric, "published"].notna().any()}
    first, second = [Head("Method", rows=2, number=False), Head("Checkpoint", rows=2, number=False)], []
    for metric in metrics:
        wide = 3 if metric in beside else 1
        first.append(Head(heading(metric), wide, 1 if beside and wide > 1 else 2))
        second += [Head(name) for name in ("ours", "published", "difference")] if wide > 1 else []
    overfitting = len(tables.overfitting(rows, view.spec)) > 0
    if overfitting:
        first.append(Head(f"{heading(view.spec.strongest)}, {tables.BEST_LESS_LAST}", 1, 2))
    heads = [first, second] if second else [[Head(head.text, number=head.number) for head in first]]
    lines = []
    for method, checkpoint, group in _lines(rows, view.spec):
        line = [Cell(method), Cell(checkpoint)]
        for metric in metrics:
            row = next(group[group[METRIC] == metric].itertuples(), None)
            line += _cells(row, metric in beside)
        if overfitting:
            own = [
                Cell(tables.signed(row), row.best_less_last)
                for row in tables.overfitting(group, view.spec).itertuples()
            ]
            line += own or [Cell("")]
        lines.append(line)
    caption = tables.caption(rows, view.spec)
    return Table(f"{comparison.label}. {caption}", heads, lines, texts=2)


def _lines(rows: pd.DataFrame, spec: TableSpec):
    """Yields label, checkpoint and rows of each line, the teacher first."""
    teacher = rows[rows[STUDENT] == TEACHER_ROW]
    for (method, checkpoint), group in teacher.groupby([METHOD, CHECKPOINT], sort=False):
        yield f"teacher ({method})", checkpoint, group
    own = rows[rows[STUDENT] != TEACHER_ROW]
    for checkpoint in spec.checkpoints:
        for method in spec.methods:
            group = own[own[METHOD].eq(method) & own[CHECKPOINT].eq(checkpoint)]
            if len(group):
                yield method, checkpoint, group


def _cells(row, beside: bool) -> list[Cell]:
    if row is None:
        return [Cell("")] * (3 if beside else 1)
    ours = Cell(formats.mean_sd(row.mean, row.sd, number_of(row.metric)), row.mean, cell_of(row))
    if not beside:
        return [ours]
    if pd.isna(row.published):
        return [ours, Cell(""), Cell("")]
    return [
        ours,
        Cell(f"{row.published:.2f} {row.mark}", row.published),
        Cell(f"{row.difference:+.2f}", row.difference),
    ]


def cell_of(row) -> str:
    """Returns the id of the row about one number in the report's section on lineage, the chain of records behind a
    number. Other sections link to it.

    Args:
        row: a row of tables/main.csv as a named tuple of `DataFrame.itertuples()`. Used fields: `teacher`, `student`,
            `method`, `checkpoint` and `metric`.

    Returns:
        TEACHER/STUDENT/METHOD/CHECKPOINT/METRIC, such as `wide/small/rslad/best/autoattack`, with special characters
        percent-encoded.
    """
    return anchor(row.teacher, row.student, row.method, row.checkpoint, row.metric)


def structures(report: ReportData) -> Section | None:
    """Makes the report's section on the class correlations of logits, and on the distances by which an attack moves
    features.

    For each teacher and student it contains a table (mean and standard deviation over the seeds), a figure of the
    matrices of correlations between the logits of every two classes, and a figure of the distances between the features
    of clean and of PGD-20 images.

    Args:
        report: data of the experiment, as `reporting.report.report_data.load_report_data(experiment)` returns them.
            Used are `tables["structure"]`, `structures` (the measurements of each network), `spec` (order of the
            methods) and `experiment` (names of the classes).

    Returns:
        A `Section` with the `id` `structure`, a `title`, a `lead` (introduction) and `groups` (tables, figures and
        other elements), which `reporting.report.page.page` renders as HTML. None if the experiment file has no entry
        `structure`.
    """
    if "structure" not in report.tables:
        return None
    table, spec = report.tables["structure"], report.spec
    lead = (
        "How alike a student's picture of the classes is to its teacher's, and how far an attack moves its features: "
        "smaller is closer to the teacher, and more robust."
    )
    moved, classes, groups = structure.distances(report.structures, spec), report.experiment.info.classes, []
    for comparison in spec.comparisons:
        parts = [
            _table(table, spec, structure.TITLES, "{:.3f}".format, comparison),
            correlations(report.structures, spec, classes, comparison),
            feature_distances(moved, spec, comparison),
        ]
        groups.append(Group(comparison.label, parts))
    note = Group("", [Text([structure.caption(table, spec)])])
    return Section("structure", "Structure and features", lead, [*groups, note])


def transfers(report: ReportData) -> Section | None:
    """Makes the report's section on transfer: accuracies of frozen networks with a new linear head on other datasets.

    For each transfer target (a dataset under `transfer` in the experiment file), teacher and student it contains a
    table (mean and standard deviation over the seeds, in percent) and a figure of the clean accuracy and of that under
    the strongest attack on the target.

    Args:
        report: data of the experiment, as `reporting.report.report_data.load_report_data(experiment)` returns them.
            Used are `tables["transfer-TARGET"]`, `transfers` (accuracy of each seed), `spec` (order of the methods) and
            `experiment`.

    Returns:
        A `Section` with the `id` `transfer`, a `title`, a `lead` (introduction) and `groups` (tables, figures and other
        elements), which `reporting.report.page.page` renders as HTML. None if the experiment file has no entry
        `transfer`.
    """
    groups: list[Group] = []
    for target, settings in report.experiment.file.transfer.items():
        table, spec = report.tables[f"transfer-{target}"], report.spec.transferred(settings.attacks)
        titles = {metric: metric_title(metric) for metric in dict.fromkeys(table[METRIC])}
        for comparison in spec.comparisons:
            parts = [
                _table(table, spec, titles, "{:.2f}".format, comparison),
                transfer_figure(report.transfers[target], spec, target, comparison),
            ]
            groups.append(Group(f"To {target}: {comparison.label}", parts))
        groups.append(Group("", [Text([transfer.caption(table, spec)])]))
    lead = (
        "Does robustness come along to another task? The backbones stay as they are, a linear head is trained on "
        "each, and both are attacked together."
    )
    return Section("transfer", "Transfer to other tasks", lead, groups) if groups else None


def _table(
    table: pd.DataFrame, spec: TableSpec, titles: dict[str, str], number: Callable[[float], str], comparison: Comparison
) -> Table:
    """Returns a table of one comparison with a row per method and checkpoint.

    Args:
        table: rows over the seeds.
        spec: order of methods and checkpoints.
        titles: of the metrics, in their order.
        number: text of a number.
        comparison: the students, and their teacher.
    """
    metrics = [metric for metric in titles if metric in set(table[METRIC])]
    rows, lines = comparison.rows(table), []
    for method, checkpoint, group in _lines(rows, spec):
        found = {row.metric: row for row in group.itertuples()}
        cells = [
            Cell(formats.mean_sd(found[m].mean, found[m].sd, number), found[m].mean) if m in found else Cell("")
            for m in metrics
        ]
        lines.append([Cell(method), Cell(checkpoint), *cells])
    heads = [Head("Method", number=False), Head("Checkpoint", number=False), *(Head(titles[m]) for m in metrics)]
    return Table(f"{comparison.label}; {formats.aggregate_label(rows)}.", [heads], lines, texts=2)
