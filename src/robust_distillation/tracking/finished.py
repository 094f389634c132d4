"""What finished runs bring to MLflow, read from the files that they left.

summary                                   tables and figures
|-- teacher/TEACHER
`-- TEACHER/STUDENT                       TEACHER is `none` for methods that need none
    `-- TEACHER/STUDENT/METHOD/seed-N
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from robust_distillation.config import NO_TEACHER, Experiment
from robust_distillation.evaluation.outcomes import read_outcomes
from robust_distillation.files import digest, read_json, read_json_lines, sha256
from robust_distillation.layout import Layout
from robust_distillation.statistics.accuracies import GROUP, accuracies

SUMMARY = "summary"


@dataclass(frozen=True)
class Finished:
    """One run of MLflow. Times are ISO 8601 in UTC, results percent."""

    name: str
    parent: str | None  # the name of the run that it lies under
    started: str
    ended: str
    note: str  # Markdown, shown as the run's description
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    curves: list[dict[str, float]] = field(default_factory=list)  # a line per epoch, its number under `epoch`
    results: dict[str, float] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)  # data.json
    artifacts: dict[str, str] = field(default_factory=dict)  # file to sha256

    def content(self) -> str:
        """The hash of everything but the note, which also says how the experiment's file was called."""
        return digest({key: value for key, value in asdict(self).items() if key != "note"})


def finished_runs(experiment: Experiment, layout: Layout) -> list[Finished]:
    """The runs of an experiment, parents first. Raises FileNotFoundError for a file that is not there yet."""
    found = [_model(f"teacher/{name}", SUMMARY, layout.teacher(name), experiment) for name in experiment.teachers]
    for run in experiment.runs:
        folder, group = layout.student(run.teacher, run.student, run.method, run.seed), f"{run.teacher}/{run.student}"
        found.append(_model(f"{group}/{run.method}/seed-{run.seed}", group, folder, experiment))
    pairs = dict.fromkeys((run.teacher, run.student) for run in experiment.runs)
    return [_summary(experiment, layout, found), *(_group(*pair, found) for pair in pairs), *found]


def _model(name: str, parent: str, folder: Path, experiment: Experiment) -> Finished:
    """A teacher, or a student with one seed."""
    layout = Layout(experiment.name)
    record, outcomes = read_json(folder / "record.json"), layout.outcomes(folder)
    made = {Path(file).stem: folder / Path(file).name for file in record["outputs"]} | {"outcomes": outcomes}
    hashes = {f"dvc.{artefact}": _md5(file) for artefact, file in made.items()}
    git = {"git_commit": record["git"]["commit"], "git_dirty": str(record["git"]["dirty"])} if record["git"] else {}
    found = accuracies(read_outcomes([outcomes]))
    cells = {"/".join([*(getattr(row, key) for key in GROUP), row.metric]): row.value for row in found.itertuples()}
    return Finished(
        name,
        parent,
        record["time"]["started"],
        record["time"]["ended"],
        _note(cells, layout.tables / "main.csv", experiment),
        tags={
            "table": str(layout.tables / "main.csv"),
            "cells": " ".join(cells),
            "code": record["code"],
            "record": sha256(folder / "record.json"),
            **hashes,
            **git,
        },
        params={key: str(value) for key, value in _flat(record["settings"])},
        curves=read_json_lines(made["metrics"]) if "metrics" in made else [],  # an imported teacher has none
        results={f"test_{row.checkpoint}_{row.metric}": round(row.value, 4) for row in found.itertuples()},
        data=read_json(layout.data),
    )


def _group(teacher: str, student: str, models: list[Finished]) -> Finished:
    """What the runs of a student by one teacher lie under."""
    name = f"{teacher}/{student}"
    taught = "trained without a teacher" if teacher == NO_TEACHER else f"distilled from teacher `{teacher}`"
    members = [model for model in models if model.parent == name]
    return Finished(name, SUMMARY, *_span(members), f"Student `{student}`, {taught}: a run per method and seed.")


def _summary(experiment: Experiment, layout: Layout, models: list[Finished]) -> Finished:
    files = sorted(file for file in layout.tables.iterdir() if not file.name.endswith(".record.json"))
    for teacher, student in experiment.pairs:
        files += sorted((layout.figures / teacher / student).iterdir())
    note = f"Experiment `{experiment.name}`: its tables and figures are artifacts of this run."
    hashes = {str(file): sha256(file) for file in files}
    return Finished(SUMMARY, None, *_span(models), note, artifacts=hashes)


def _span(models: Iterable[Finished]) -> tuple[str, str]:
    """From the first start to the last end."""
    return min(model.started for model in models), max(model.ended for model in models)


def _note(cells: dict[str, float], table: Path, experiment: Experiment) -> str:
    story = f"robust-distillation explain {list(cells)[-1]} {experiment.arguments}"
    lines = [f"Its cells in `{table}`, which has the mean over the seeds; the story of one: `{story}`", ""]
    lines += ["| cell | this run (%) |", "|---|---:|"]
    return "\n".join([*lines, *(f"| `{cell}` | {value:.2f} |" for cell, value in cells.items())])


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield prefix, value
        return
    for key, inner in value.items():
        yield from _flat(inner, f"{prefix}.{key}" if prefix else key)


def _md5(path: Path) -> str:
    """The hash under which DVC stores a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()
