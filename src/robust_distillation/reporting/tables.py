"""Makes the comparison tables from outcomes alone: CSV for programs, Markdown and LaTeX for people.

Published numbers stand beside ours if the experiment names published tables, see `reference.published`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from typing import Any, NamedTuple

import pandas as pd
from tabulate import tabulate

from robust_distillation.columns import (
    CHECKPOINT,
    METHOD,
    METRIC,
    NO_TEACHER,
    PROTOCOL,
    ROW_KEYS,
    SPREAD,
    STUDENT,
    TEACHER,
    TEACHER_ROW,
)
from robust_distillation.comparison import Comparison
from robust_distillation.files import write_json
from robust_distillation.layout import Layout
from robust_distillation.reference import published
from robust_distillation.reporting import formats
from robust_distillation.reporting.table_spec import TableSpec, metric_title
from robust_distillation.statistics.accuracies import summary

COLUMNS = [*ROW_KEYS, *SPREAD, "published", "difference", "mark"]
BENEATH = "↳ "  # begins the label of a line that belongs to the line above
NO_RUN = "No run of this experiment belongs to this table."


class View(NamedTuple):
    """A part of the main table: the arguments of `markdown` and `latex`.

    Attributes:
        table: rows of main.csv with all its columns, see `tidy`.
        spec: comparisons (student and teacher), methods, checkpoints and metrics of the part.
        title: heading; "" for none.
    """

    table: pd.DataFrame
    spec: TableSpec
    title: str


class Line(NamedTuple):
    """A line of a table beside published numbers.

    Attributes:
        label: name of a method, or the teacher's label such as `teacher (trades, best)`. For a line of published
            numbers: `↳ published`, or `↳ ` and the name of another paper.
        cells: metric to text. A line of ours has `mean ± sd`, for example `53.20 ± 0.41`; a published one has value,
            mark (reliability, see `reference.published.MARKS`) and difference, for example `53.85 P, -0.65`.
    """

    label: str
    cells: dict[str, str]


class PublishedBlock(NamedTuple):
    """The table of one comparison and checkpoint, beside published numbers.

    Attributes:
        comparison: names of the student and the teacher.
        checkpoint: `best` or `last`.
        lines: the teacher's line first, then those of the methods. Published numbers follow the line that they belong
            to.
    """

    comparison: Comparison
    checkpoint: str
    lines: list[Line]


def write(outcomes: pd.DataFrame, spec: TableSpec, layout: Layout) -> None:
    """Writes the main table, the tables under `tables` in the experiment file, and the main accuracies.

    Tables are results/EXPERIMENT/tables/NAME.{csv,md,tex}. Main accuracies are one JSON file for each teacher, and for
    each teacher, student and method: `{"clean": 93.22, "autoattack": 46.0}`, in percent. Their folder is removed first,
    so that files of methods that the experiment no longer has disappear.

    Args:
        outcomes: one row per image and checkpoint of each model. Columns: `teacher`, `student`, `method`, `seed`,
            `checkpoint`, `index`, `label`, `prediction`, `block`, `attack_seed`, and one bool per attack.
        spec: comparisons (student and teacher), and the order of the rows.
        layout: paths of the files.

    Raises:
        UserError: if the seeds of a method were not attacked on the same images.
    """
    table = tidy(outcomes, spec)
    for name, view in {"main": View(table, spec, ""), **named_tables(table, spec)}.items():
        formats.write(layout.tables / name, view.table, markdown(*view), latex(*view))
    shutil.rmtree(layout.metrics, ignore_errors=True)  # it may hold methods that the experiment no longer has
    for (teacher, student, method), numbers in headline(table, spec).items():
        model = (teacher,) if student == TEACHER_ROW else (teacher, student, method)
        write_json(layout.headline(*model), numbers)


def tidy(outcomes: pd.DataFrame, spec: TableSpec) -> pd.DataFrame:
    """Computes the main table: mean accuracies over the seeds, beside published numbers.

    Args:
        outcomes: one row per image and checkpoint of each model. Columns: `teacher`, `student`, `method`, `seed`,
            `checkpoint`, `index`, `label`, `prediction`, `block`, `attack_seed`, and one bool per attack.
        spec: the order of the rows, and the published tables.

    Returns:
        The content of main.csv: a row per teacher, student, method, checkpoint and metric. Teachers' own rows (student
        `-`) come first. Students trained without a teacher are under the teacher `none`. Columns: `teacher`, `student`,
        `method`, `protocol`, `checkpoint`, `metric`, `n_seeds`, `n_images`, `mean`, `sd` (NaN for one seed), `ci_low`,
        `ci_high` (95 % interval), `published`, `difference` (mean minus published) and `mark` (reliability, a key of
        `reference.published.MARKS`), the last three empty if no published number is known. Accuracies are in percent,
        with 4 decimals.

    Raises:
        UserError: if the seeds of a method were not attacked on the same images.
    """
    table = summary(outcomes).assign(**{PROTOCOL: spec.protocol})
    entries = [next(iter(spec.known(row)), None) for row in table.itertuples()]
    table["published"] = pd.Series([entry and entry.value for entry in entries], dtype=float)
    table["difference"] = table["mean"] - table["published"]
    table["mark"] = pd.Series([entry and entry.mark for entry in entries], dtype=object)
    return spec.ordered(table, spec.metrics)[COLUMNS].round(4)


def named_tables(table: pd.DataFrame, spec: TableSpec) -> dict[str, View]:
    """Returns the tables under `tables` in the experiment file: parts of the main table.

    Each shows the teachers, students, methods, checkpoints and metrics of its settings. Teachers' own rows and students
    trained without a teacher are shown beside the distilled students. A student without any distilled one in the part
    has a comparison without a teacher.

    Args:
        table: the main table, with all columns of `tidy`.
        spec: comparisons (student and teacher), methods, checkpoints, metrics, and the settings of the tables.

    Returns:
        Name to the part of the main table, which may have no row.
    """
    return {name: _view(table, spec, settings) for name, settings in spec.tables.items()}


def _view(table: pd.DataFrame, spec: TableSpec, settings: dict[str, Any]) -> View:
    def kept(key: str, names: Iterable[str]) -> list[str]:
        return [name for name in dict.fromkeys(names) if settings.get(key) is None or name in settings[key]]

    teachers = kept("teachers", (comparison.teacher for comparison in spec.comparisons))
    students = kept("students", (comparison.student for comparison in spec.comparisons))
    narrow = {key: kept(key, getattr(spec, key)) for key in ("methods", "checkpoints", "metrics")}
    rows = table[table[METRIC].isin(narrow["metrics"])]
    own = rows[rows[METHOD].isin(narrow["methods"]) & rows[CHECKPOINT].isin(narrow["checkpoints"])]
    present = set(zip(own[TEACHER], own[STUDENT], strict=True))
    comparisons = [
        one for one in spec.comparisons if one.teacher in teachers and one.student in students and one in present
    ]
    if settings.get("teachers") is None or not comparisons:
        taught = {comparison.student for comparison in comparisons}
        alone = [Comparison(NO_TEACHER, student) for student in students if student not in taught]
        comparisons += [comparison for comparison in alone if comparison in present]
    indices = {
        index for comparison in comparisons for part in (comparison.students(own), comparison.teacher_rows(rows))
        for index in part.index
    }  # fmt: skip
    view = rows[rows.index.isin(indices)].reset_index(drop=True)
    return View(view, replace(spec, comparisons=comparisons, **narrow), settings["title"])


def blocks(table: pd.DataFrame, spec: TableSpec) -> list[formats.Block]:
    """Makes a table of texts `mean ± sd` for each comparison (student and teacher), without published numbers.

    Args:
        table: rows of the main table, with the columns `teacher`, `student`, `method`, `checkpoint`, `metric`, `mean`
            and `sd` (percent).
        spec: comparisons, methods, checkpoints and metrics in their order.
    """
    return formats.blocks(table, spec, spec.metrics, "{:.2f}".format)


def blocks_beside_published(table: pd.DataFrame, spec: TableSpec) -> list[PublishedBlock]:
    """Makes a table for each comparison (student and teacher) and checkpoint, with published numbers beneath ours.

    The teacher's own line comes first, then a line per method. Beneath it stands the published number as `value mark,
    difference`, and beneath that the numbers of other papers for the same model, a line per paper.

    Args:
        table: rows of the main table, with the columns `teacher`, `student`, `method`, `checkpoint`, `metric`, `mean`
            and `sd` (percent).
        spec: comparisons, methods, checkpoints and metrics in their order, and the published tables.
    """
    found = []
    for comparison in spec.comparisons:
        teacher, students = comparison.teacher_rows(table), comparison.students(table)
        for checkpoint in [name for name in spec.checkpoints if name in set(students[CHECKPOINT])]:
            here = students[students[CHECKPOINT] == checkpoint]
            groups = [(label, rows) for label, rows in teacher.groupby(formats.teacher_labels(teacher))]
            groups += [(method, here[here[METHOD] == method]) for method in spec.methods]
            lines = [line for label, rows in groups if len(rows) for line in _lines(label, rows, spec)]
            found.append(PublishedBlock(comparison, checkpoint, lines))
    return found


def _lines(label: str, rows: pd.DataFrame, spec: TableSpec) -> Iterator[Line]:
    yield Line(label, {row.metric: formats.mean_sd(row.mean, row.sd) for row in rows.itertuples()})
    beneath: dict[str, dict[str, str]] = {"published": {}}
    for row in rows.itertuples():
        for rank, entry in enumerate(spec.known(row)):
            cells = beneath.setdefault(entry.paper if rank else "published", {})
            cells.setdefault(row.metric, _published_cell(row.mean, entry))
    yield from (Line(BENEATH + name, cells) for name, cells in beneath.items() if cells)


def _published_cell(mean: float, entry: published.Entry) -> str:
    """Returns `value mark, difference`; the difference is that of the two numbers as the table prints them."""
    difference = round(round(mean, 2) - entry.value, 2) + 0.0  # + 0.0: never -0.00
    return f"{entry.value:.2f} {entry.mark}, {difference:+.2f}"


def caption(table: pd.DataFrame, spec: TableSpec) -> str:
    """Returns the caption of a table in its Markdown and LaTeX files.

    Args:
        table: rows of the main table, with the columns `student`, `checkpoint`, `n_seeds` and `n_images`; may be empty.
        spec: name of the experiment, threat model, protocol and choice of the checkpoint `best`.
    """
    about = f"{spec.attacked}, {spec.protocol} protocol"
    if table.empty:
        return f"{spec.experiment}: {about}."
    images = table.loc[table[STUDENT] != TEACHER_ROW, "n_images"].iloc[0]
    about = f"accuracy in percent on {images} test images, {about}"
    return f"{spec.experiment}: {about}; {formats.aggregate_label(table)}. {formats.checkpoints_label(table, spec)}."


def legend(table: pd.DataFrame, spec: TableSpec) -> list[str]:
    """Returns sentences on the published numbers in a table: the meaning of their marks, their sources and notes.

    Args:
        table: rows of the main table, with the columns `teacher`, `student`, `method`, `checkpoint` and `metric`.
        spec: the published tables, and the methods.

    Returns:
        The sentences. Empty if the experiment names no published table.
    """
    if not spec.published:
        return []
    by_row = [(row, spec.known(row)) for row in table.itertuples()]
    entries = [entry for _, known in by_row for entry in known]
    parts = []
    if entries:
        marks = [f"{mark} {means}" for mark, means in published.MARKS.items() if any(e.mark == mark for e in entries)]
        parts.append(
            "With ours stand published accuracies, how well each is known, and the difference, ours less published."
        )
        parts.append(f"Marks: {'; '.join(marks)}.")
        parts.append(f"Sources: {_listed(f'{e.paper}, {e.table} ({e.mark})' for e in entries)}.")
    if notes := [entry.note for entry in entries if entry.note]:
        parts.append(f"Notes: {_listed(notes)}.")
    own = [(row.method, bool(known)) for row, known in by_row if row.student != TEACHER_ROW]
    if without := [method for method in spec.methods if (method, False) in own and (method, True) not in own]:
        parts.append(f"No published number to compare with is known for {', '.join(without)}.")
    return parts


def _listed(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def markdown(table: pd.DataFrame, spec: TableSpec, title: str = "") -> str:
    """Returns tables as Markdown: one per comparison (student and teacher), or per comparison and checkpoint.

    Without published numbers there is one per comparison. If a row of `table` has a published number, there is one per
    comparison and checkpoint, with published numbers beneath ours and a legend below.

    Args:
        table: rows of the main table with all columns of `tidy`. If it is empty, a sentence stands in place of the
            tables.
        spec: comparisons, and the order of rows and columns.
        title: heading; "" for none.
    """
    head = f"## {title}\n\n{caption(table, spec)}" if title else caption(table, spec)
    if table.empty:
        return f"{head}\n\n{NO_RUN}\n"
    metrics, parts = _metrics(table, spec), [head]
    if table["published"].isna().all():
        parts = [formats.markdown(head, blocks(table, spec), metrics).rstrip("\n")]
    else:
        for comparison, checkpoint, lines in blocks_beside_published(table, spec):
            rows = [[label, *(cells.get(metric, "") for metric in metrics)] for label, cells in lines]
            aligned = ["left", *["right"] * len(metrics)]
            grid = tabulate(rows, [METHOD, *metrics.values()], tablefmt="pipe", colalign=aligned, disable_numparse=True)
            parts.append(f"**{comparison.label}: {checkpoint}**\n\n{grid}")
    if sentences := legend(table, spec):
        parts.append("\n".join(f"- {sentence}" for sentence in sentences))
    return "\n\n".join(parts) + "\n"


def latex(table: pd.DataFrame, spec: TableSpec, title: str = "") -> str:
    """Returns a LaTeX table (package booktabs) per comparison (student and teacher).

    If a row of `table` has a published number, the checkpoints stand one above the other, with published numbers
    beneath ours and a legend below.

    Args:
        table: rows of the main table with all columns of `tidy`. If it is empty, a sentence stands in the table.
        spec: comparisons, and the order of rows and columns.
        title: beginning of the caption; "" for none.
    """
    head = f"{title}. {caption(table, spec)}" if title else caption(table, spec)
    if table.empty:
        return _latex(head, [[NO_RUN + r" \\"]], 1)
    metrics, text = _metrics(table, spec), " ".join(legend(table, spec))
    if table["published"].isna().all():
        made = formats.latex(head, blocks(table, spec), metrics)
    else:
        tables = []
        for comparison, group in groupby(blocks_beside_published(table, spec), key=lambda block: block.comparison):
            parts = [[_row("", metrics.values())]]
            for _, checkpoint, lines in group:
                over = rf"\multicolumn{{{1 + len(metrics)}}}{{l}}{{\textit{{{checkpoint}}}}} \\"
                rows = [_row(label, [cells.get(metric, "") for metric in metrics]) for label, cells in lines]
                parts.append([over, *rows])
            tables.append(_latex(f"{head} {comparison.label}.", parts, 1 + len(metrics)))
        made = "\n".join(tables)
    written = rf"\par\medskip{{\footnotesize {formats.escaped(text)}\par}}"
    return made.replace(r"\end{table}", f"{written}\n\\end{{table}}") if text else made


def _metrics(table: pd.DataFrame, spec: TableSpec) -> dict[str, str]:
    """Returns the titles of the metrics that occur."""
    return {metric: metric_title(metric) for metric in spec.metrics if metric in set(table[METRIC])}


def _latex(head: str, parts: list[list[str]], columns: int) -> str:
    """Returns a table of `parts`, each a list of rows, with a rule between them."""
    body = ["\n".join(rows) for rows in parts]
    lines = [
        r"\begin{table}[t]", rf"\caption{{{formats.escaped(head)}}}",
        rf"\begin{{tabular}}{{l{'r' * (columns - 1)}}}", r"\toprule",
        "\n\\midrule\n".join(body), r"\bottomrule", r"\end{tabular}", r"\end{table}", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _row(label: str, cells: Iterable[str]) -> str:
    indented = label.startswith(BENEATH)
    label = formats.escaped(label.removeprefix(BENEATH))
    written = (formats.escaped(cell).replace(" -", " $-$") for cell in cells)
    return " & ".join([rf"\quad {label}" if indented else label, *written]) + r" \\"


def headline(table: pd.DataFrame, spec: TableSpec) -> dict[tuple[str, str, str], dict[str, float]]:
    """Returns the main accuracies of each teacher and method: clean, and under the last attack of the experiment.

    Args:
        table: rows of the main table, with the columns `teacher`, `student`, `method`, `checkpoint`, `metric` and
            `mean`.
        spec: the first of its checkpoints and the last of its metrics are selected. A teacher has one checkpoint.

    Returns:
        Maps (teacher, student, method) to a dict of metric to accuracy in percent, rounded to 2 decimals, for example
        `{("wide", "small", "rslad"): {"clean": 93.22, "autoattack": 46.0}}`. The student of a teacher's own accuracies
        is `-`.
    """
    found: dict = {}
    rows = spec.at_headline(table)
    for row in rows[rows[METRIC].isin(["clean", spec.metrics[-1]])].itertuples():
        found.setdefault((row.teacher, row.student, row.method), {})[row.metric] = round(row.mean, 2)
    return found
