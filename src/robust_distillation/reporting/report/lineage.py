"""The section on the lineage of every number: the values of each seed, and the records and files behind them."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pandas as pd

from robust_distillation import metrics
from robust_distillation.columns import CHECKPOINT, METRIC, MODEL, SEED, TEACHER_ROW
from robust_distillation.comparison import Comparison
from robust_distillation.pipeline.step import Step
from robust_distillation.pipeline.steps import steps_of_model
from robust_distillation.pipeline.text import commit, machine, versions, when
from robust_distillation.reporting.cells import models_of
from robust_distillation.reporting.report.elements import Cell, Facts, Group, Head, Section, Table, anchor
from robust_distillation.reporting.report.report_data import ReportData
from robust_distillation.reporting.report.results import cell_of
from robust_distillation.reporting.table_spec import heading, number_of


@dataclass(frozen=True)
class Record:
    """The record of one job, as texts for the report. The function `section` of this module makes it.

    A record is the JSON file beside an output: its inputs, settings, code hash and hashes of the outputs. A job is one
    run of a step, such as the training of one student.

    Attributes:
        title: name of the step (kind of job), such as `train-student`.
        file: path of the record, such as `results/digits/students/wide/small/rslad/seed-0/record.json`.
        command: command line that makes the outputs of the job again, such as `robust-distillation train-student
            wide/small/rslad/seed-0 --experiment params.yaml`.
        facts: pairs (term, value) with the terms `When`, `On` (the machine), `Code` (git commit, and a hash of the
            source code that the outputs depend on) and `Versions` (of packages).
        inputs: pairs (path, sha256), one for each file that the job read.
        outputs: pairs (path, sha256), one for each file that the job made.
        settings: settings of the job as indented JSON.
    """

    title: str
    file: str
    command: str
    facts: list[tuple[str, str]]
    inputs: list[tuple[str, str]]
    outputs: list[tuple[str, str]]
    settings: str


@dataclass(frozen=True)
class Records:
    """The records of all jobs that are about one trained network, as an element of a section of the report.

    The function `section` of this module makes it. A record is the JSON file beside an output: its inputs, settings,
    code hash and hashes of the outputs. A job is one run of a step, such as the training of one student.

    Attributes:
        kind: class constant `records`, not an argument. The report renders the element by
            templates/parts/records.html.jinja.
        title: the seed and the names of the steps, such as `Seed 0: train-student, attack`.
        records: the records, each with the fields `title`, `file`, `command`, `facts`, `inputs`, `outputs` and
            `settings`: that of the training or import first, then those of the attacks and analyses.
    """

    kind = "records"
    title: str
    records: list[Record]


def section(report: ReportData) -> Section:
    """Makes the report's section on lineage: from which files every number of tables/main.csv was made, the chain of
    records behind it.

    It contains one group for each teacher, and one for each combination of teacher, student and method, with the id
    `elements.anchor(teacher, student, method)`, such as `wide/small/rslad`. A group contains:

    - A table with a row for each checkpoint and metric: mean over the seeds, standard deviation, 95 % interval, value
      of each seed, number of test images, and the name that the command `robust-distillation explain` takes. The id of
      a row is the name of the number, such as `wide/small/rslad/best/autoattack`, as `reporting.report.results.cell_of`
      returns it.
    - The records of all jobs of each seed. A record is the JSON file beside an output: its inputs, settings, code hash
      and hashes of the outputs.

    Args:
        report: data of the experiment, as `reporting.report.report_data.load_report_data(experiment)` returns them.
            Used are `experiment`, `spec`, `table` (the main table), `values` (accuracy of each seed) and `records` (of
            all jobs).

    Returns:
        A `Section` with the `id` `lineage`, a `title`, a `lead` (introduction) and `groups` (tables, figures and other
        elements), which `reporting.report.page.page` renders as HTML.
    """
    lead = (
        "Where a number comes from, model by model: its value for every seed, the record of every job with the files "
        "it read and made and their sha256, and the commands that make it again. A number's name is what "
        "`robust-distillation explain` takes."
    )
    whole = Facts([
        ("Does everything fit its record?", f"`robust-distillation audit {report.experiment.arguments}`"),
        ("Everything again", f"`robust-distillation reproduce {report.experiment.arguments}`"),
    ])  # fmt: skip
    groups = [Group("", [whole])]
    for (teacher, student, method), rows in report.table.groupby(MODEL, sort=False):
        values, itself = report.values, student == TEACHER_ROW
        own = values[(values[MODEL] == [teacher, student, method]).all(axis=1)]
        parts: list = [_explained(report, rows), _numbers(rows, own)]
        for model in models_of(report.experiment, teacher, student, method):
            records = [_record(report, step) for step in steps_of_model(report.experiment, model)]
            titles = ", ".join(record.title for record in records)
            parts.append(Records(f"Seed {model.keys['seed']}: {titles}", records))
        title = f"Teacher {teacher} ({method})" if itself else f"{method}: {Comparison(teacher, student).label.lower()}"
        groups.append(Group(title, parts, id=anchor(teacher, student, method)))
    return Section("lineage", "The lineage of every number", lead, groups)


def _explained(report: ReportData, rows: pd.DataFrame) -> Facts:
    """Describes how to ask for the lineage of any number, with a headline number as example."""
    example = rows[rows[METRIC].eq(report.spec.strongest)].iloc[0]
    return Facts(
        [("One number alone", f"`robust-distillation explain {_name(example)} {report.experiment.arguments}`")]
    )


def _name(row) -> str:
    return "/".join([row.teacher, row.student, row.method, row.checkpoint, row.metric])


def _numbers(rows: pd.DataFrame, values: pd.DataFrame) -> Table:
    seeds = list(dict.fromkeys(values[SEED]))
    by_cell = {key: found.set_index(SEED)["value"] for key, found in values.groupby([CHECKPOINT, METRIC], sort=False)}
    lines = []
    for row in rows.itertuples():
        found = by_cell[row.checkpoint, row.metric]
        spread, number = [row.sd, row.ci_low, row.ci_high], number_of(row.metric)
        cells = [Cell("" if pd.isna(value) else number(value)) for value in [row.mean, *spread]]
        each = [Cell(number(found[seed])) if seed in found else Cell("") for seed in seeds]
        title = f"{heading(row.metric)} ({row.checkpoint})"
        lines.append(
            [Cell(title, id=cell_of(row)), *cells, *each, Cell(str(row.n_images)), Cell(_name(row), tone="code")]
        )
    heads = ["mean", "sd", "95 % from", "to", *(f"seed {seed}" for seed in seeds), "images"]
    named = [Head("Number", number=False), *map(Head, heads), Head("Its name")]
    fractions = [heading(metric) for metric in dict.fromkeys(rows[METRIC]) if metrics.get(metric).unit == "fraction"]
    but = f", but {' and '.join(fractions)} as a fraction" if fractions else ""
    return Table(f"The numbers, in percent{but}.", [named], lines, sortable=False)


def _record(report: ReportData, step: Step) -> Record:
    record = report.records[step.record]
    return Record(
        step.name,
        str(step.record),
        f"robust-distillation {step.command} {report.experiment.arguments}",
        [
            ("When", when(record)),
            ("On", machine(record["hardware"])),
            ("Code", f"{commit(record, whole=True)}; fingerprint {record['code']}"),
            ("Versions", versions(record)),
        ],
        list(record["inputs"].items()),
        list(record["outputs"].items()),
        json.dumps(record["settings"], indent=1, sort_keys=True),
    )
