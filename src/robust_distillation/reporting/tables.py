"""The comparison tables, from outcomes only: tidy CSV for programs, Markdown and LaTeX for people.

Beside what we measured stands what was published, where an experiment names it: see published.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, NamedTuple

import pandas as pd
from tabulate import tabulate

from robust_distillation.columns import ITSELF, NO_TEACHER
from robust_distillation.files import write_json, write_text
from robust_distillation.layout import Layout
from robust_distillation.reference import published
from robust_distillation.reporting import formats
from robust_distillation.statistics.accuracies import summary

COLUMNS = [
    "teacher", "student", "method", "protocol", "checkpoint", "metric",
    "n_seeds", "n_images", "mean", "sd", "ci_low", "ci_high", "published", "difference", "mark",
]  # fmt: skip
TITLES = {
    "clean": "Clean", "fgsm": "FGSM", "pgd10": "PGD-10", "pgd20": "PGD-20", "pgd_sat": "PGD_SAT",
    "pgd_trades": "PGD_TRADES", "cw": "CW", "apgd": "APGD-CE", "autoattack": "AutoAttack", "square": "Square",
}  # fmt: skip
BENEATH = "↳ "  # begins the label of a line that belongs to the line above
Line = tuple[str, dict[str, str]]  # a label and cells by metric
NO_RUN = "No run of this experiment belongs to this table."


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
    search: str = "fp32"  # how the main attacks look for x'
    selection: str = "chosen on the validation split"  # how `best` was
    published: list[str] = field(default_factory=list)  # references, see published.py; the first that knows is shown
    published_as: dict[str, str] = field(default_factory=dict)  # our names of teachers, students, methods to theirs
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)  # views, see named_tables

    @property
    def attacked(self) -> str:
        """The threat model of the main attacks, and how they searched."""
        return self.threat + (", attacks searched in bfloat16" if self.search == "bf16" else "")

    def transferred(self, attacks: list[str]) -> Matrix:
        """Of the same models on another task, where the first checkpoint alone is looked at."""
        return replace(self, metrics=["clean", *attacks], checkpoints=self.checkpoints[:1])

    def known(self, row: Any) -> list[published.Entry]:
        """The published numbers beside a row of main.csv, the one to compare with first."""
        names = [self.published_as.get(name, name) for name in (row.teacher, row.student, row.method)]
        return published.known(self.published, *names, row.checkpoint, row.metric)


class View(NamedTuple):
    """A table that shows part of the matrix: what `markdown` and `latex` take."""

    table: pd.DataFrame
    matrix: Matrix
    title: str


def write(outcomes: pd.DataFrame, matrix: Matrix, layout: Layout) -> None:
    """main.{csv,md,tex}, the same of every named table, and the headline numbers."""
    table = tidy(outcomes, matrix)
    for name, view in {"main": View(table, matrix, ""), **named_tables(table, matrix)}.items():
        write_text(layout.tables / f"{name}.csv", view.table.to_csv(index=False))
        write_text(layout.tables / f"{name}.md", markdown(*view))
        write_text(layout.tables / f"{name}.tex", latex(*view))
    shutil.rmtree(layout.metrics, ignore_errors=True)  # of methods that the experiment no longer has
    for (teacher, student, method), numbers in headline(table, matrix).items():
        model = (teacher,) if student == ITSELF else (teacher, student, method)
        write_json(layout.headline(*model), numbers)


def tidy(outcomes: pd.DataFrame, matrix: Matrix) -> pd.DataFrame:
    """main.csv: one row per teacher, student, method, checkpoint and metric, in percent; teachers come first, as
    student `-`. Runs that need no teacher stand once, under teacher `none`. `published`, `difference` (mean less
    published) and `mark` (a key of published.MARKS) are empty where nothing is known."""
    table = summary(outcomes).assign(protocol=matrix.protocol)
    found = [next(iter(matrix.known(row)), None) for row in table.itertuples()]
    table["published"] = pd.Series([entry and entry.value for entry in found], dtype=float)
    table["difference"] = table["mean"] - table["published"]
    table["mark"] = pd.Series([entry and entry.mark for entry in found], dtype=object)
    return formats.ordered(table, matrix, matrix.metrics)[COLUMNS].round(4)


def named_tables(table: pd.DataFrame, matrix: Matrix) -> dict[str, View]:
    """The views that `matrix.tables` names: `title`, and of `teachers`, `students`, `methods`, `checkpoints`,
    `metrics` those to show, all where absent or None. Teachers' own rows and runs that need no teacher stay beside
    what is distilled; students of which nothing distilled is shown stand alone. A view may be empty."""
    return {name: _view(table, matrix, chosen) for name, chosen in matrix.tables.items()}


def _view(table: pd.DataFrame, matrix: Matrix, chosen: dict[str, Any]) -> View:
    def kept(key: str, names: Iterable[str]) -> list[str]:
        return [name for name in dict.fromkeys(names) if chosen.get(key) is None or name in chosen[key]]

    teachers = kept("teachers", (teacher for teacher, _ in matrix.pairs))
    students = kept("students", (student for _, student in matrix.pairs))
    narrow = {key: kept(key, getattr(matrix, key)) for key in ("methods", "checkpoints", "metrics")}
    rows = table[table["metric"].isin(narrow["metrics"])]
    own = rows[rows["method"].isin(narrow["methods"]) & rows["checkpoint"].isin(narrow["checkpoints"])]
    present = set(zip(own["teacher"], own["student"], strict=True))
    shown = [pair for pair in matrix.pairs if pair[0] in teachers and pair[1] in students and pair in present]
    if chosen.get("teachers") is None or not shown:
        taught = {student for _, student in shown}
        alone = [(NO_TEACHER, student) for student in students if student not in taught]
        shown += [pair for pair in alone if pair in present]
    indices = {index for pair in shown for index in _compared(own, *pair).index}
    itself = rows["student"].eq(ITSELF) & rows["teacher"].isin([teacher for teacher, _ in shown])
    view = rows[rows.index.isin(indices) | itself].reset_index(drop=True)
    return View(view, replace(matrix, pairs=shown, **narrow), chosen["title"])


def _compared(table: pd.DataFrame, teacher: str, student: str) -> pd.DataFrame:
    """The rows of a student that compare: distilled from this teacher, or trained without one."""
    return table[table["student"].eq(student) & table["teacher"].isin([teacher, NO_TEACHER])]


def blocks(table: pd.DataFrame, matrix: Matrix) -> list[formats.Block]:
    """For each teacher and student the rows that compare."""
    return formats.blocks(table, matrix, matrix.metrics, "{:.2f}".format)


def blocks_beside_published(table: pd.DataFrame, matrix: Matrix) -> list[tuple[str, str, str, list[Line]]]:
    """As `blocks`, but one for each checkpoint, as lines. Beneath a line of ours stands what was published, `value
    mark, difference`, and beneath that what others got from the same, by paper. The teacher stands in each."""
    found = []
    for teacher, student in matrix.pairs:
        itself = table[(table["student"] == ITSELF) & (table["teacher"] == teacher)]
        own = _compared(table, teacher, student)
        for checkpoint in [name for name in matrix.checkpoints if name in set(own["checkpoint"])]:
            here = own[own["checkpoint"] == checkpoint]
            groups = [(label, rows) for label, rows in itself.groupby(_label(itself))]
            groups += [(method, here[here["method"] == method]) for method in matrix.methods]
            lines = [line for label, rows in groups if len(rows) for line in _lines(label, rows, matrix)]
            found.append((teacher, student, checkpoint, lines))
    return found


def _lines(label: str, rows: pd.DataFrame, matrix: Matrix) -> Iterator[Line]:
    yield label, {row.metric: _cell(row.mean, row.sd) for row in rows.itertuples()}
    beneath: dict[str, dict[str, str]] = {"published": {}}
    for row in rows.itertuples():
        for rank, entry in enumerate(matrix.known(row)):
            cells = beneath.setdefault(entry.paper if rank else "published", {})
            cells.setdefault(row.metric, _published_cell(row.mean, entry))
    yield from ((BENEATH + name, cells) for name, cells in beneath.items() if cells)


def _label(itself: pd.DataFrame) -> pd.Series:
    return "teacher (" + itself["method"] + ", " + itself["checkpoint"] + ")"


def _cell(mean: float, sd: float) -> str:
    return f"{mean:.2f}" if pd.isna(sd) else f"{mean:.2f} ± {sd:.2f}"


def _published_cell(mean: float, entry: published.Entry) -> str:
    """The difference is that of the two numbers as they are shown."""
    difference = round(round(mean, 2) - entry.value, 2) + 0.0  # + 0.0: never -0.00
    return f"{entry.value:.2f} {entry.mark}, {difference:+.2f}"


def caption(table: pd.DataFrame, matrix: Matrix) -> str:
    about = f"{matrix.attacked}, {matrix.protocol} protocol"
    if table.empty:
        return f"{matrix.experiment}: {about}."
    images = table.loc[table["student"] != ITSELF, "n_images"].iloc[0]
    about = f"accuracy in percent on {images} test images, {about}"
    return f"{matrix.experiment}: {about}; {formats.over_seeds(table)}. {formats.checkpoints(table, matrix)}."


def legend(table: pd.DataFrame, matrix: Matrix) -> list[str]:
    """What the published numbers in a table are and how well they are known: sentences, none where the experiment
    names no reference."""
    if not matrix.published:
        return []
    by_row = [(row, matrix.known(row)) for row in table.itertuples()]
    entries = [entry for _, found in by_row for entry in found]
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
    own = [(row.method, bool(found)) for row, found in by_row if row.student != ITSELF]
    if without := [method for method in matrix.methods if (method, False) in own and (method, True) not in own]:
        parts.append(f"No published number to compare with is known for {', '.join(without)}.")
    return parts


def _listed(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def markdown(table: pd.DataFrame, matrix: Matrix, title: str = "") -> str:
    """A grid per teacher and student; beside published numbers one per checkpoint."""
    head = f"## {title}\n\n{caption(table, matrix)}" if title else caption(table, matrix)
    if table.empty:
        return f"{head}\n\n{NO_RUN}\n"
    metrics, parts = _metrics(table, matrix), [head]
    if table["published"].isna().all():
        parts = [formats.markdown(head, blocks(table, matrix), metrics).rstrip("\n")]
    else:
        for teacher, student, checkpoint, lines in blocks_beside_published(table, matrix):
            rows = [[label, *(cells.get(metric, "") for metric in metrics)] for label, cells in lines]
            aligned = ["left", *["right"] * len(metrics)]
            grid = tabulate(
                rows, ["method", *metrics.values()], tablefmt="pipe", colalign=aligned, disable_numparse=True
            )
            parts.append(f"**Student {student}, teacher {teacher}: {checkpoint}**\n\n{grid}")
    if sentences := legend(table, matrix):
        parts.append("\n".join(f"- {sentence}" for sentence in sentences))
    return "\n\n".join(parts) + "\n"


def latex(table: pd.DataFrame, matrix: Matrix, title: str = "") -> str:
    """A booktabs table per teacher and student; beside published numbers the checkpoints one above the other."""
    head = f"{title}. {caption(table, matrix)}" if title else caption(table, matrix)
    if table.empty:
        return _latex(head, [[NO_RUN + r" \\"]], 1)
    metrics, text = _metrics(table, matrix), " ".join(legend(table, matrix))
    if table["published"].isna().all():
        made = formats.latex(head, blocks(table, matrix), metrics)
    else:
        tables = []
        for pair, group in groupby(blocks_beside_published(table, matrix), key=lambda block: block[:2]):
            parts = [[_row("", metrics.values())]]
            for _, _, checkpoint, lines in group:
                over = rf"\multicolumn{{{1 + len(metrics)}}}{{l}}{{\textit{{{checkpoint}}}}} \\"
                rows = [_row(label, [cells.get(metric, "") for metric in metrics]) for label, cells in lines]
                parts.append([over, *rows])
            tables.append(_latex(f"{head} Student {pair[1]}, teacher {pair[0]}.", parts, 1 + len(metrics)))
        made = "\n".join(tables)
    written = rf"\par\medskip{{\footnotesize {formats.escaped(text)}\par}}"
    return made.replace(r"\end{table}", f"{written}\n\\end{{table}}") if text else made


def _metrics(table: pd.DataFrame, matrix: Matrix) -> dict[str, str]:
    """The metrics that occur, with their titles."""
    return {metric: metric_title(metric) for metric in matrix.metrics if metric in set(table["metric"])}


def _latex(head: str, parts: list[list[str]], columns: int) -> str:
    """A table of `parts`, each rows with a rule between them."""
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


def at_headline(outcomes: pd.DataFrame, matrix: Matrix) -> pd.DataFrame:
    """The rows that the headline speaks of: students at the first checkpoint, teachers at the one they teach from."""
    return outcomes[outcomes["checkpoint"].eq(matrix.checkpoints[0]) | outcomes["student"].eq(ITSELF)]


def headline(table: pd.DataFrame, matrix: Matrix) -> dict[tuple[str, str, str], dict[str, float]]:
    """The numbers to watch, by teacher, student and method: clean accuracy and that under the strongest attack."""
    found: dict = {}
    rows = at_headline(table, matrix)
    for row in rows[rows["metric"].isin(["clean", matrix.metrics[-1]])].itertuples():
        found.setdefault((row.teacher, row.student, row.method), {})[row.metric] = round(row.mean, 2)
    return found


def metric_title(metric: str) -> str:
    if metric.startswith("transfer_"):
        return f"transfer {metric_title(metric.removeprefix('transfer_'))}"
    return TITLES.get(metric, metric)
