"""Makes the comparison tables from outcomes alone: CSV for programs, Markdown and LaTeX for people.

Published numbers stand beside ours if the experiment names published tables, see `reference.published`.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from typing import Any, NamedTuple

import pandas as pd
from tabulate import tabulate

from robust_distillation import metrics
from robust_distillation.columns import (
    AUGMENTED,
    CHECKPOINT,
    METHOD,
    METRIC,
    MODEL,
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
from robust_distillation.reporting.table_spec import TableSpec, heading, number_of
from robust_distillation.statistics.accuracies import summary

OVERFITTING = "best_less_last"  # column: robust overfitting, or its like in the metric of the row
COLUMNS = [*ROW_KEYS, *SPREAD, "published", "difference", "mark", OVERFITTING]
BEST_LESS_LAST = "best less last"
BENEATH = "↳ "  # begins the label of a line that belongs to the line above
NO_RUN = "No run of this experiment belongs to this table."


class View(NamedTuple):
    """A part of the main table with the settings by which it is printed. Its fields are the arguments of
    `reporting.tables.markdown` and `reporting.tables.latex`.

    Attributes:
        table: rows of tables/main.csv with all columns, as `reporting.tables.tidy` returns them: one row per teacher,
            student, method, checkpoint and metric.
        spec: contents and order of this part: a copy of the experiment's `TableSpec` with the `comparisons` (pairs of
            teacher and student), `methods`, `checkpoints` and `metrics` of the part.
        title: heading of the part, such as `White-box robustness`; "" for none.
    """

    table: pd.DataFrame
    spec: TableSpec
    title: str


class Line(NamedTuple):
    """One line of a table that has our numbers and published ones.

    Attributes:
        label: first cell of the line. A line of ours has the name of a method, or `teacher (trades, best)`. A line of
            published numbers, which stands below the line of ours, has `↳ published` or `↳ ` and the name of another
            paper.
        cells: name of a metric to text. A line of ours has `mean ± sd`, for example `53.20 ± 0.41`. A line of published
            numbers has the published value, the letter of its reliability (`P`: read in the source, `C`: official code,
            `S`: secondary source, `R`: relayed, doubtful), and ours minus the published value, for example `53.85 P,
            -0.65`.
    """

    label: str
    cells: dict[str, str]


class PublishedBlock(NamedTuple):
    """The table of one teacher, student and checkpoint, with published numbers below ours. `blocks_beside_published`
    makes it.

    Attributes:
        comparison: names of the teacher and the student network, such as `Comparison(teacher="wide", student="small")`.
        checkpoint: `best` (chosen by evaluations during the training) or `last` (after the last epoch), of the
            students.
        lines: lines from top to bottom: that of the teacher, then one per method. Each is a `Line(label, cells)`. Lines
            of published numbers follow the line with which they are compared.
    """

    comparison: Comparison
    checkpoint: str
    lines: list[Line]


def write(outcomes: pd.DataFrame, spec: TableSpec, layout: Layout) -> None:
    """Writes the main table, the tables under `tables` in the experiment file, and JSON files of the main accuracies.

    A table is results/EXPERIMENT/tables/NAME.csv, NAME.md and NAME.tex; NAME is `main` or a name under `tables`. The
    main accuracies are results/EXPERIMENT/metrics/teachers/TEACHER.json and
    results/EXPERIMENT/metrics/students/TEACHER/STUDENT/METHOD.json, for example `{"clean": 93.22, "autoattack": 46.0}`
    in percent, mean over the seeds. The folder results/EXPERIMENT/metrics is removed first, so that files of methods
    that the experiment no longer has disappear.

    Args:
        outcomes: one row per trained network (a teacher, or a student of one method and one seed), checkpoint and test
            image, as `evaluation.outcomes.read_outcomes` returns them. Columns: `teacher`, `student` (`-` in a row
            about a teacher), `method`, `seed`, `checkpoint`, `index` (position in the test split), `label`,
            `prediction` (class of the clean image), `block` (number of the batch of images that were attacked
            together), `attack_seed` (seed of the attacks on that batch), and one bool column per attack, such as
            `autoattack`: True if the clean and the adversarial image are both classified correctly. Further metrics may
            also need `confidence`, and for each attack `ATTACK.prediction` and `ATTACK.confidence`.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`.
        layout: paths of the experiment's files, `experiment.layout`.

    Raises:
        UserError: if the seeds of a method, or a student and its teacher, were not attacked on the same images, or if a
            column that a further metric needs is missing.
    """
    table = tidy(outcomes, spec)
    for name, view in {"main": View(table, spec, ""), **named_tables(table, spec)}.items():
        formats.write(layout.tables / name, view.table, markdown(*view), latex(*view))
    shutil.rmtree(layout.metrics, ignore_errors=True)  # it may hold methods that the experiment no longer has
    for (teacher, student, method), numbers in headline(table, spec).items():
        model = (teacher,) if student == TEACHER_ROW else (teacher, student, method)
        write_json(layout.headline(*model), numbers)


def tidy(outcomes: pd.DataFrame, spec: TableSpec) -> pd.DataFrame:
    """Computes the main table from outcomes: means of accuracies and further metrics, beside published ones.

    The half length of an interval is the longest of three (`statistics.intervals.half_width`): Student's t over the
    means of the S seeds (S - 1 degrees of freedom), Student's t with the variance components of seeds and images
    (Satterthwaite's degrees of freedom), and an exact binomial bound (no error in N images). So the interval covers
    training with other seeds and testing on other images, and with one seed other images only. For a further metric
    that is no mean over the images, such as `worst_class.autoattack`, the variance that is due to the images comes from
    500 sets of resampled images, and the interval is lengthened on one side by the estimated bias.

    Args:
        outcomes: one row per trained network (a teacher, or a student of one method and one seed), checkpoint and test
            image, as `evaluation.outcomes.read_outcomes` returns them. Columns: `teacher`, `student` (`-` in a row
            about a teacher), `method`, `seed`, `checkpoint`, `index` (position in the test split), `label`,
            `prediction` (class of the clean image), `block` (number of the batch of images that were attacked
            together), `attack_seed` (seed of the attacks on that batch), and one bool column per attack, such as
            `autoattack`: True if the clean and the adversarial image are both classified correctly. Further metrics may
            also need `confidence`, and for each attack `ATTACK.prediction` and `ATTACK.confidence`.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are `protocol`, the order of the names, and `published` and
            `published_as`, which select the published numbers.

    Returns:
        The content of tables/main.csv: one row per teacher, student, method, checkpoint and metric. The rows about
        teachers (student `-`) come first. Students trained without a teacher have the teacher `none`. Columns:
        `teacher`, `student`, `method`, `protocol`, `checkpoint`, `metric`, `n_seeds`, `n_images`, `mean`, `sd` (NaN for
        one seed), `ci_low`, `ci_high` (95 % interval of the mean), `published`, `difference` (mean minus published) and
        `mark` (reliability: `P`, `C`, `S` or `R`, the keys of `reference.published.MARKS`). These three are missing if
        no published number is known. And `best_less_last`: the mean at the checkpoint `best` minus that at `last`, in
        the rows of `last` if both are evaluated; under an attack it is called robust overfitting. Accuracies are in
        percent, other metrics in their unit (percent or a fraction), with 4 decimals.

    Raises:
        UserError: if the seeds of a method, or a student and its teacher, were not attacked on the same images, or if a
            column that a further metric needs is missing.
    """
    table = summary(outcomes, spec.further).assign(**{PROTOCOL: spec.protocol})
    entries = [next(iter(spec.known(row)), None) for row in table.itertuples()]
    table["published"] = pd.Series([entry and entry.value for entry in entries], dtype=float)
    table["difference"] = table["mean"] - table["published"]
    table["mark"] = pd.Series([entry and entry.mark for entry in entries], dtype=object)
    table[OVERFITTING] = _best_less_last(table)
    return spec.ordered(table, spec.columns)[COLUMNS].round(4)


def _best_less_last(table: pd.DataFrame) -> pd.Series:
    """Returns the mean at `best` minus that at `last` in the rows of `last`; NaN in all others."""
    best = table[table[CHECKPOINT] == "best"].set_index([*MODEL, METRIC])["mean"]
    found = [
        best.get((*(getattr(row, key) for key in MODEL), row.metric), math.nan) - row.mean
        if row.checkpoint == "last"
        else math.nan
        for row in table.itertuples()
    ]
    return pd.Series(found, index=table.index, dtype=float)


def signed(row: Any) -> str:
    """Formats the column `best_less_last` of a row.

    Args:
        row: a row of tables/main.csv as a named tuple of `DataFrame.itertuples()`.

    Returns:
        A text such as `+0.22`; "" if the number is missing.
    """
    text = number_of(row.metric)(getattr(row, OVERFITTING))
    return "" if math.isnan(getattr(row, OVERFITTING)) else text if text.startswith("-") else f"+{text}"


def named_tables(table: pd.DataFrame, spec: TableSpec) -> dict[str, View]:
    """Selects the parts of the main table that the experiment file names under `tables`.

    A part shows the teachers, students, methods, checkpoints and metrics that its entry lists. Rows about the teachers
    of the part, and about students trained without a teacher, are shown beside the distilled students. If the entry
    lists no teachers, or the part has no distilled students, then each student without distilled networks is shown
    under the teacher `none`.

    Args:
        table: the main table (tables/main.csv) with all columns, as `reporting.tables.tidy` returns it.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are `tables` (the entries) and the lists `comparisons`, `methods`,
            `checkpoints` `metrics` and `further` (metrics beside the accuracies), from which the entries select.

    Returns:
        Name of the entry to the part, such as `{"white-box": View(table, spec, title)}`, with its rows, settings and
        title. A part may have no rows.
    """
    return {name: _view(table, spec, settings) for name, settings in spec.tables.items()}


def _view(table: pd.DataFrame, spec: TableSpec, settings: dict[str, Any]) -> View:
    def kept(key: str, names: Iterable[str]) -> list[str]:
        return [name for name in dict.fromkeys(names) if settings.get(key) is None or name in settings[key]]

    teachers = kept("teachers", (comparison.teacher for comparison in spec.comparisons))
    students = kept("students", (comparison.student for comparison in spec.comparisons))
    narrow = {key: kept(key, getattr(spec, key)) for key in ("methods", "checkpoints", "metrics")}
    narrow["further"] = kept("metrics", spec.further)
    rows = table[table[METRIC].isin([*narrow["metrics"], *narrow["further"]])]
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
    """Makes one table of texts `mean ± sd` for each teacher and student, without published numbers.

    Args:
        table: rows of the main table (tables/main.csv), as `reporting.tables.tidy` returns them. Used columns:
            `teacher`, `student`, `method`, `checkpoint`, `metric`, `mean`, `sd` (percent) and `best_less_last`.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are `comparisons` (pairs of teacher and student), `methods`, `checkpoints`
            and `metrics`.

    Returns:
        One `formats.Block(comparison, cells)` for each teacher and student, in the order of `spec.comparisons`:
        `comparison` has the two names, and the DataFrame `cells` has a row for the teacher and for each method, and a
        column for each pair (checkpoint, metric) with a number. If the column `best_less_last` of `table` has a number
        under the strongest attack (the last of `spec.metrics`), one more column ("best less last", METRIC) has robust
        overfitting: the mean at `best` minus that at `last`, such as `+0.22`.
    """
    found = formats.blocks(table, spec, spec.columns)
    for comparison, cells in found:
        rows = overfitting(comparison.students(table), spec)
        if len(rows):
            texts = {row.method: signed(row) for row in rows.itertuples()}
            cells[BEST_LESS_LAST, spec.strongest] = [texts.get(name, "") for name in cells.index]
    return found


def blocks_beside_published(table: pd.DataFrame, spec: TableSpec) -> list[PublishedBlock]:
    """Makes one table for each teacher, student and checkpoint, with published numbers below ours.

    The teacher's line comes first, then one line per method. Below a line stands a line with the published numbers to
    compare with, as `53.85 P, -0.65` (value, reliability, ours minus published), and then one line per further paper
    that has numbers for the same network.

    Args:
        table: rows of the main table (tables/main.csv), as `reporting.tables.tidy` returns them. Used columns:
            `teacher`, `student`, `method`, `checkpoint`, `metric`, `mean`, `sd` (percent) and `best_less_last`.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are `comparisons` (pairs of teacher and student), `methods`,
            `checkpoints`, and `published` and `published_as`, which select the published numbers.

    Returns:
        The tables as `PublishedBlock(comparison, checkpoint, lines)`, in the order of `spec.comparisons`, then of
        `spec.checkpoints`. A checkpoint without students is left out.
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
    cells = {row.metric: formats.mean_sd(row.mean, row.sd, number_of(row.metric)) for row in rows.itertuples()}
    for row in overfitting(rows, spec).itertuples():
        cells[OVERFITTING] = signed(row)
    yield Line(label, cells)
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
    """Returns the caption of a table of accuracies as plain text, for its Markdown and LaTeX files and for the report.

    An example is `digits: accuracy in percent on 300 test images, linf eps 0.15, controlled protocol; mean ± sd over 3
    seeds. best: chosen on the validation split.`

    Args:
        table: rows of the main table (tables/main.csv), as `reporting.tables.tidy` returns them; may be empty. Used
            columns: `student`, `checkpoint`, `metric`, `n_seeds` and `n_images`.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are the name of the experiment, the threat model, `protocol`, `further`
            (metrics beside the accuracies), `selection` (how `best` was chosen), `extra` (extra training images) and
            `augmented` (`transfer_augmented_` attacks).
    """
    about = f"{spec.attacked}, {spec.protocol} protocol"
    if table.empty:
        return f"{spec.experiment}: {about}."
    images = table.loc[table[STUDENT] != TEACHER_ROW, "n_images"].iloc[0]
    further = _further(table, spec)
    parts = ["accuracy in percent"] if set(table[METRIC]) - set(further) else []
    what = " and ".join([*parts, "further metrics"] if further else parts)
    about = f"{what} on {images} test images, {about}"
    about += f"; {formats.aggregate_label(table)}. {formats.checkpoints_label(table, spec)}."
    augmented = any(AUGMENTED in metric for metric in table[METRIC])
    sentences = [spec.extra] * bool(spec.extra) + [spec.augmented] * augmented
    return " ".join([f"{spec.experiment}: {about}", *sentences])


def legend(table: pd.DataFrame, spec: TableSpec) -> list[str]:
    """Explains the numbers of a table in sentences: its further metrics (those beside the accuracies), robust
    overfitting, and its published numbers.

    On published numbers the sentences say what the marks of reliability mean, the sources and notes, and which methods
    have no published number.

    Args:
        table: rows of the main table (tables/main.csv), as `reporting.tables.tidy` returns them. Used columns:
            `teacher`, `student`, `method`, `checkpoint`, `metric`, `n_seeds` and `best_less_last`.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are `methods`, and `published` and `published_as`, which select the
            published numbers.

    Returns:
        Sentences for the lines below the table, as plain text. Empty if the table has no further metric and no robust
        overfitting, and the experiment file names no published table.
    """
    parts = explained(table, spec)
    if len(overfitting(table, spec)):
        parts.append(
            f"{BEST_LESS_LAST}: robust overfitting, {heading(spec.strongest)} at the checkpoint best minus that at "
            "last."
        )
    if not spec.published:
        return parts
    by_row = [(row, spec.known(row)) for row in table.itertuples()]
    entries = [entry for _, known in by_row for entry in known]
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


def explained(table: pd.DataFrame, spec: TableSpec) -> list[str]:
    """Explains the further metrics in a table in sentences: what each measures, and where the intervals come from.

    Further metrics are those beside the accuracies, such as `worst_class.autoattack`.

    Args:
        table: rows of the main table (tables/main.csv), as `reporting.tables.tidy` returns them. Used columns:
            `student`, `metric` and `n_seeds`.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used is `further`, the list of further metrics.

    Returns:
        Plain sentences: one for each kind of metric in the table (its title, meaning and unit, and whether lower is
        better), then, if a metric is no mean over images, one that says that its intervals come from resampled test
        images. Empty if the table has no further metric.
    """
    known = {metric.kind: metric for metric in map(metrics.get, _further(table, spec))}.values()
    parts = []
    for metric in known:
        unit = "in percent" if metric.unit == "percent" else f"a {metric.unit}"
        lower = "" if metric.higher_is_better else "; lower is better"
        parts.append(f"{metric.title}: {metric.meaning[0].lower()}{metric.meaning[1:]}, {unit}{lower}.")
    if resampled := [metric.title for metric in known if not metric.is_mean]:
        seeds = table.loc[table[STUDENT] != TEACHER_ROW, "n_seeds"]
        spread = f" and from the spread over {formats.seeds_label(seeds)}"
        if seeds.max() < 3:
            spread = " alone: one seed tells nothing of others" if seeds.max() == 1 else f"{spread}, which are few"
        parts.append(f"The intervals of {', '.join(resampled)} in main.csv come from resampled test images{spread}.")
    return parts


def _further(table: pd.DataFrame, spec: TableSpec) -> list[str]:
    """Returns the metrics beside the accuracies that occur."""
    return [metric for metric in spec.further if metric in set(table[METRIC])]


def _listed(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def markdown(table: pd.DataFrame, spec: TableSpec, title: str = "") -> str:
    """Returns the main table or a part of it as Markdown. Names are written as they are, without escaping.

    If no row has a published number, there is one table for each teacher and student. Else there is one for each
    teacher, student and checkpoint, with published numbers below ours. If the experiment file names published tables, a
    list that explains them follows.

    Args:
        table: rows of the main table (tables/main.csv) with all columns, as `reporting.tables.tidy` returns them. If
            there are none, a sentence stands in place of the tables.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are `comparisons` (pairs of teacher and student), the order of rows and
            columns, and the texts of the caption.
        title: heading, such as `White-box robustness`; "" for none.
    """
    head = f"## {title}\n\n{caption(table, spec)}" if title else caption(table, spec)
    if table.empty:
        return f"{head}\n\n{NO_RUN}\n"
    titles, parts = _titles(table, spec), [head]
    if table["published"].isna().all():
        parts = [formats.markdown(head, blocks(table, spec), titles).rstrip("\n")]
    else:
        for comparison, checkpoint, lines in blocks_beside_published(table, spec):
            rows = [[label, *(cells.get(metric, "") for metric in titles)] for label, cells in lines]
            aligned = ["left", *["right"] * len(titles)]
            grid = tabulate(rows, [METHOD, *titles.values()], tablefmt="pipe", colalign=aligned, disable_numparse=True)
            parts.append(f"**{comparison.label}: {checkpoint}**\n\n{grid}")
    if sentences := legend(table, spec):
        parts.append("\n".join(f"- {sentence}" for sentence in sentences))
    return "\n\n".join(parts) + "\n"


def latex(table: pd.DataFrame, spec: TableSpec, title: str = "") -> str:
    """Returns the main table or a part of it as LaTeX (package booktabs), one `table` environment per teacher and
    student. Special characters are escaped here.

    If a row has a published number, the checkpoints stand one above the other, with published numbers below ours. If
    the experiment file names published tables, a text that explains them follows in small type.

    Args:
        table: rows of the main table (tables/main.csv) with all columns, as `reporting.tables.tidy` returns them. If
            there are none, the table contains a sentence.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are `comparisons` (pairs of teacher and student), the order of rows and
            columns, and the texts of the caption.
        title: beginning of the caption, such as `White-box robustness`; "" for none.
    """
    head = f"{title}. {caption(table, spec)}" if title else caption(table, spec)
    if table.empty:
        return _latex(head, [[NO_RUN + r" \\"]], 1)
    titles, text = _titles(table, spec), " ".join(legend(table, spec))
    if table["published"].isna().all():
        made = formats.latex(head, blocks(table, spec), titles)
    else:
        tables = []
        for comparison, group in groupby(blocks_beside_published(table, spec), key=lambda block: block.comparison):
            parts = [[_row("", titles.values())]]
            for _, checkpoint, lines in group:
                over = rf"\multicolumn{{{1 + len(titles)}}}{{l}}{{\textit{{{checkpoint}}}}} \\"
                rows = [_row(label, [cells.get(metric, "") for metric in titles]) for label, cells in lines]
                parts.append([over, *rows])
            tables.append(_latex(f"{head} {comparison.label}.", parts, 1 + len(titles)))
        made = "\n".join(tables)
    written = rf"\par\medskip{{\footnotesize {formats.escaped(text)}\par}}"
    return made.replace(r"\end{table}", f"{written}\n\\end{{table}}") if text else made


def _titles(table: pd.DataFrame, spec: TableSpec) -> dict[str, str]:
    """Returns the headings of the metrics that occur, and of robust overfitting beside published numbers."""
    titles = {metric: heading(metric) for metric in spec.columns if metric in set(table[METRIC])}
    if table["published"].notna().any() and len(overfitting(table, spec)):
        titles[OVERFITTING] = f"{heading(spec.strongest)}, {BEST_LESS_LAST}"
    return titles


def overfitting(table: pd.DataFrame, spec: TableSpec) -> pd.DataFrame:
    """Returns the rows that have the robust overfitting under the strongest attack, those of the checkpoint `last`.

    Args:
        table: rows of the main table, as `tidy` returns them. A table of an earlier version, without the column
            `best_less_last`, has no such row.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` for a parsed experiment file
            `experiment`. The last of `metrics` is the accuracy under the strongest attack.
    """
    if OVERFITTING not in table:
        return table.iloc[:0]
    return table[table[METRIC].isin(spec.metrics[-1:]) & table[OVERFITTING].notna()]


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
    """Selects the main accuracies of each teacher and each method from the main table: clean, and under the strongest
    attack (the last of `evaluation.attacks` in the experiment file).

    Args:
        table: rows of the main table (tables/main.csv), as `reporting.tables.tidy` returns them. Used columns:
            `teacher`, `student`, `method`, `checkpoint`, `metric` and `mean`.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are the first of `checkpoints`, at which students are taken, and the last
            of `metrics`. A teacher has one checkpoint.

    Returns:
        (teacher, student, method) to a dict of metric to accuracy in percent, mean over the seeds, rounded to 2
        decimals. An example is `{("wide", "small", "rslad"): {"clean": 93.22, "autoattack": 46.0}}`. For a teacher's
        own accuracies the student is `-`.
    """
    found: dict = {}
    rows = spec.at_headline(table)
    for row in rows[rows[METRIC].isin(["clean", spec.metrics[-1]])].itertuples():
        found.setdefault((row.teacher, row.student, row.method), {})[row.metric] = round(row.mean, 2)
    return found
