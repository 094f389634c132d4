"""The story of every number: what it was computed from, what made that, and how to make it again or check it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from robust_distillation.evaluation.outcomes import ITSELF
from robust_distillation.reporting.report.cost import duration, seconds
from robust_distillation.reporting.report.headline import commit
from robust_distillation.reporting.report.material import Material
from robust_distillation.reporting.report.parts import Cell, Facts, Group, Head, Section, Table, anchor
from robust_distillation.reporting.report.results import cell_of
from robust_distillation.reporting.tables import metric_title

MODEL = ["teacher", "student", "method"]


@dataclass(frozen=True)
class Record:
    """A part of a section: a record as people read it."""

    kind = "record"
    title: str
    file: str
    command: str
    facts: Facts
    inputs: list[tuple[str, str]]
    outputs: list[tuple[str, str]]
    settings: str


def section(material: Material) -> Section:
    lead = (
        "Where a number comes from, model by model: its value for every seed, the files it was computed from with their "
        "sha256, the record of every job, and the commands that make it again. The names of the numbers below are those "
        "that `robust-distillation explain` takes."
    )
    groups = []
    for (teacher, student, method), rows in material.table.groupby(MODEL, sort=False):
        values = material.values
        own = values[values["teacher"].eq(teacher) & values["student"].eq(student) & values["method"].eq(method)]
        parts: list = [_commands(material, rows), _numbers(rows, own)]
        for seed in dict.fromkeys(own["seed"]):
            folder = _folder(material, teacher, student, method, seed)
            name = teacher if student == ITSELF else f"{teacher}/{student}/{method}/seed-{seed}"
            parts += [_record(material, file, name, seed) for file in _records(material, folder)]
        title = (
            f"Teacher {teacher} ({method})" if student == ITSELF else f"{method}: student {student}, teacher {teacher}"
        )
        groups.append(Group(title, parts, id=anchor(teacher, student, method)))
    return Section("stories", "The story of every number", lead, groups)


def _folder(material: Material, teacher: str, student: str, method: str, seed: int) -> Path:
    if student == ITSELF:
        return material.layout.teacher(teacher)
    return material.layout.student(teacher, student, method, seed)


def _records(material: Material, folder: Path) -> list[Path]:
    """The records of all jobs about the model in `folder`."""
    below = folder.relative_to(material.layout.root).parts
    return [
        file
        for file in material.records
        if file.parent == folder or _about(file.relative_to(material.layout.root), below)
    ]


def _about(file: Path, below: tuple[str, ...]) -> bool:
    """Is `file`, under results/EXPERIMENT, like KIND/.../FOLDER.record.json or KIND/.../FOLDER/SHARD.record.json?"""
    parts = (*file.parts[:-1], file.name.removesuffix(".record.json"))
    return parts[-len(below) :] == below or parts[-len(below) - 1 : -1] == below


def _commands(material: Material, rows: pd.DataFrame) -> Facts:
    """How to ask for any of the numbers, the headline's as example."""
    shown = rows[rows["metric"].eq(material.strongest)].iloc[0]
    cell = "/".join([shown.teacher, shown.student, shown.method, shown.checkpoint, shown.metric])
    options = material.experiment.arguments
    return Facts([
        ("One number's story", f"`robust-distillation explain {cell} {options}`"),
        ("Is everything as recorded?", f"`robust-distillation audit {options}`"),
    ])  # fmt: skip


def _numbers(rows: pd.DataFrame, values: pd.DataFrame) -> Table:
    seeds = list(dict.fromkeys(values["seed"]))
    by_cell = {
        key: found.set_index("seed")["value"] for key, found in values.groupby(["checkpoint", "metric"], sort=False)
    }
    lines = []
    for row in rows.itertuples():
        found = by_cell[row.checkpoint, row.metric]
        name = "/".join([row.teacher, row.student, row.method, row.checkpoint, row.metric])
        spread = [row.sd, row.ci_low, row.ci_high]
        cells = [Cell("" if pd.isna(value) else f"{value:.2f}") for value in [row.mean, *spread]]
        each = [Cell(f"{found[seed]:.2f}") if seed in found else Cell("") for seed in seeds]
        title = f"{metric_title(row.metric)} ({row.checkpoint})"
        lines.append([Cell(title, id=cell_of(row)), Cell(name, tone="code"), *cells, *each, Cell(str(row.n_images))])
    heads = ["mean", "sd", "95 % from", "to", *(f"seed {seed}" for seed in seeds), "images"]
    named = [Head("Number", number=False), Head("Its name", number=False), *map(Head, heads)]
    return Table("The numbers, in percent.", [named], lines, texts=2, sortable=False)


def _record(material: Material, file: Path, name: str, seed: int) -> Record:
    record = material.records[file]
    step, options = record["step"], material.experiment.arguments
    target = file.relative_to(material.layout.root).parts[1] if step == "transfer" else ""
    shard = file.name.removesuffix(".record.json") if step == "attack" and "-of-" in file.name else ""
    command = ["robust-distillation", step, target, name, f"--shard {shard}" * bool(shard), options]
    hardware = record["hardware"]
    facts = Facts([
        ("When", f"{record['time']['started']}, {duration(seconds(record))}"),
        ("On", ", ".join(str(hardware[key]) for key in ("cpu", "machine", "gpu") if hardware[key]) + f", {hardware['cores']} cores"),
        ("Code", f"{commit(record)}; fingerprint {record['code']}"),
        ("Versions", ", ".join(f"{package} {version}" for package, version in record["versions"].items())),
    ])  # fmt: skip
    return Record(
        f"Seed {seed}: {step}{f' to {target}' if target else ''}{f' {shard}' if shard else ''}", str(file), " ".join(filter(None, command)), facts,
        list(record["inputs"].items()), list(record["outputs"].items()),
        json.dumps(record["settings"], indent=1, sort_keys=True),
    )  # fmt: skip
