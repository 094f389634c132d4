"""The story of every number: what it was computed from, what made that, and how to make it again or check it."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pandas as pd

from robust_distillation.columns import ITSELF
from robust_distillation.pipeline.step import Step
from robust_distillation.pipeline.steps import steps_of_model
from robust_distillation.pipeline.text import commit, machine, versions, when
from robust_distillation.reporting.cells import models_of
from robust_distillation.reporting.report.elements import Cell, Facts, Group, Head, Section, Table, anchor, of_pair
from robust_distillation.reporting.report.report_data import Material
from robust_distillation.reporting.report.results import cell_of
from robust_distillation.reporting.tables import metric_title

MODEL = ["teacher", "student", "method"]


@dataclass(frozen=True)
class Record:
    """One as people read it."""

    title: str
    file: str
    command: str
    facts: list[tuple[str, str]]
    inputs: list[tuple[str, str]]
    outputs: list[tuple[str, str]]
    settings: str


@dataclass(frozen=True)
class Records:
    """A part of a section: those of all jobs about one model."""

    kind = "records"
    title: str
    records: list[Record]


def section(material: Material) -> Section:
    lead = (
        "Where a number comes from, model by model: its value for every seed, the record of every job with the files "
        "it read and made and their sha256, and the commands that make it again. A number's name is what "
        "`robust-distillation explain` takes."
    )
    whole = Facts([
        ("Does everything fit its record?", f"`robust-distillation audit {material.experiment.arguments}`"),
        ("Everything again", f"`robust-distillation reproduce {material.experiment.arguments}`"),
    ])  # fmt: skip
    groups = [Group("", [whole])]
    for (teacher, student, method), rows in material.table.groupby(MODEL, sort=False):
        values, itself = material.values, student == ITSELF
        own = values[values["teacher"].eq(teacher) & values["student"].eq(student) & values["method"].eq(method)]
        parts: list = [_explained(material, rows), _numbers(rows, own)]
        for model in models_of(material.experiment, teacher, student, method):
            records = [_record(material, step) for step in steps_of_model(material.experiment, model)]
            titles = ", ".join(record.title for record in records)
            parts.append(Records(f"Seed {model.keys['seed']}: {titles}", records))
        title = f"Teacher {teacher} ({method})" if itself else f"{method}: {of_pair(teacher, student).lower()}"
        groups.append(Group(title, parts, id=anchor(teacher, student, method)))
    return Section("stories", "The story of every number", lead, groups)


def _explained(material: Material, rows: pd.DataFrame) -> Facts:
    """How to ask for any of the numbers, the headline's as example."""
    shown = rows[rows["metric"].eq(material.strongest)].iloc[0]
    return Facts(
        [("One number alone", f"`robust-distillation explain {_name(shown)} {material.experiment.arguments}`")]
    )


def _name(row) -> str:
    return "/".join([row.teacher, row.student, row.method, row.checkpoint, row.metric])


def _numbers(rows: pd.DataFrame, values: pd.DataFrame) -> Table:
    seeds = list(dict.fromkeys(values["seed"]))
    by_cell = {
        key: found.set_index("seed")["value"] for key, found in values.groupby(["checkpoint", "metric"], sort=False)
    }
    lines = []
    for row in rows.itertuples():
        found = by_cell[row.checkpoint, row.metric]
        spread = [row.sd, row.ci_low, row.ci_high]
        cells = [Cell("" if pd.isna(value) else f"{value:.2f}") for value in [row.mean, *spread]]
        each = [Cell(f"{found[seed]:.2f}") if seed in found else Cell("") for seed in seeds]
        title = f"{metric_title(row.metric)} ({row.checkpoint})"
        lines.append(
            [Cell(title, id=cell_of(row)), *cells, *each, Cell(str(row.n_images)), Cell(_name(row), tone="code")]
        )
    heads = ["mean", "sd", "95 % from", "to", *(f"seed {seed}" for seed in seeds), "images"]
    named = [Head("Number", number=False), *map(Head, heads), Head("Its name")]
    return Table("The numbers, in percent.", [named], lines, sortable=False)


def _record(material: Material, step: Step) -> Record:
    record = material.records[step.record]
    return Record(
        step.name,
        str(step.record),
        f"robust-distillation {step.command} {material.experiment.arguments}",
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
