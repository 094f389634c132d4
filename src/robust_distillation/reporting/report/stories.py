"""The story of every number: what it was computed from, what made that, and how to make it again or check it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from robust_distillation.config import ITSELF
from robust_distillation.reporting.report.material import Material
from robust_distillation.reporting.report.parts import Cell, Facts, Group, Head, Section, Table, anchor, of_pair
from robust_distillation.reporting.report.records import commit, duration, seconds
from robust_distillation.reporting.report.results import cell_of
from robust_distillation.reporting.tables import metric_title

SHARD = re.compile(r"^\d+-of-\d+\.record")
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
        for seed in dict.fromkeys(own["seed"]):
            name = teacher if itself else f"{teacher}/{student}/{method}/seed-{seed}"
            about = _about(material, _folder(material, teacher, student, method, seed))
            records = [_record(material, file, name) for file in about]
            parts.append(Records(f"Seed {seed}: {', '.join(record.title for record in records)}", records))
        title = f"Teacher {teacher} ({method})" if itself else f"{method}: {of_pair(teacher, student).lower()}"
        groups.append(Group(title, parts, id=anchor(teacher, student, method)))
    return Section("stories", "The story of every number", lead, groups)


def _folder(material: Material, teacher: str, student: str, method: str, seed: int) -> Path:
    if student == ITSELF:
        return material.layout.teacher(teacher)
    return material.layout.student(teacher, student, method, seed)


def _about(material: Material, folder: Path) -> list[Path]:
    """The records of all jobs about the model in `folder`: its own, and KIND/.../FOLDER.record.json, or
    KIND/.../FOLDER/SHARD.record.json."""
    below = folder.relative_to(material.layout.root).parts
    found = []
    for file in material.records:
        parts = (*file.relative_to(material.layout.root).parts[:-1], file.name.removesuffix(".record.json"))
        if file.parent == folder or below in (parts[-len(below) :], parts[-len(below) - 1 : -1]):
            found.append(file)
    return found


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


def _record(material: Material, file: Path, name: str) -> Record:
    record = material.records[file]
    step, below = record["step"], file.relative_to(material.layout.root)
    target = below.parts[1] if step == "transfer" else ""
    shard = file.name.removesuffix(".record.json") if step == "attack" and SHARD.search(file.name) else ""
    command = ["robust-distillation", step, target, name, f"--shard {shard}" * bool(shard)]
    hardware = record["hardware"]
    machine = [str(hardware[key]) for key in ("cpu", "machine", "gpu") if hardware[key]]
    facts = [
        ("When", f"{record['time']['started']}, {duration(seconds(record))}"),
        ("On", ", ".join([*machine, f"{hardware['cores']} cores"])),
        ("Code", f"{commit(record, whole=True)}; fingerprint {record['code']}"),
        ("Versions", ", ".join(f"{package} {version}" for package, version in record["versions"].items())),
    ]
    return Record(
        " ".join(filter(None, [step, target, shard])),
        str(file),
        " ".join(filter(None, [*command, material.experiment.arguments])),
        facts,
        list(record["inputs"].items()),
        list(record["outputs"].items()),
        json.dumps(record["settings"], indent=1, sort_keys=True),
    )
