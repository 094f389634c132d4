"""Reads what an experiment's files say of each MLflow run.

The MLflow runs of an experiment form a tree:

    summary                                   tables and figures
    |-- teacher/TEACHER                       one per teacher
    `-- TEACHER/STUDENT                       one per teacher and student; TEACHER is `none` for methods without one
        `-- TEACHER/STUDENT/METHOD/seed-N     one per trained student
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from robust_distillation import metrics
from robust_distillation.columns import GROUP, NO_TEACHER
from robust_distillation.config import Experiment
from robust_distillation.digests import digest
from robust_distillation.files import md5, read_json, read_json_lines, sha256
from robust_distillation.layout import Layout
from robust_distillation.pipeline.models import model_in
from robust_distillation.reporting.cells import values_of
from robust_distillation.reporting.table_spec import number_of

SUMMARY = "summary"  # name of the root run


@dataclass(frozen=True)
class MlflowRun:
    """Content of one MLflow run, read from the files of an experiment and not yet in MLflow.

    The run is about a trained network, about a group of networks (one student architecture distilled from one teacher,
    by all distillation methods and seeds), or about the whole experiment. The runs form a tree, with `summary` as the
    root.

    Attributes:
        name: `summary`, `teacher/TEACHER`, `TEACHER/STUDENT` or `TEACHER/STUDENT/METHOD/seed-N`, for example
            `wide/small/rslad/seed-0`.
        parent: name of the parent run; None for `summary`, the root.
        started: start of the training in ISO 8601, UTC, for example `2026-01-31T12:00:59+00:00`; for a parent, the
            earliest start among its trainings.
        ended: end of the training in ISO 8601, UTC; for a parent, the latest end among its trainings.
        note: Markdown text, which MLflow displays as the description of the run.
        tags: value by tag. For a trained network they are `table` (path of tables/main.csv), `cells` (names of the
            table's cells to which it contributes, separated by spaces), `code` (code hash: hash of the source code that
            the training depends on), `record` (sha256 of the record, the JSON file beside the checkpoints: inputs,
            settings, code hash and hashes of the outputs), `dvc.ARTEFACT` (md5 of each file, for example `dvc.best`),
            and `git_commit` and `git_dirty` if there is a git repository. Empty for a parent.
        params: value, as text, of each setting of the training, by dotted key, for example `training.learning_rate`.
        curves: one dict of metrics for each epoch, with the number of the epoch under `epoch`; empty without a
            training.
        results: accuracy in percent, or another metric in its unit, by `test_CHECKPOINT_METRIC`, for example
            `test_best_clean`.
        data: name and splits of the dataset, the content of data.json; empty for a parent.
        artifacts: sha256 of each file to upload, by path; only `summary` has any (tables and figures).
    """

    name: str
    parent: str | None
    started: str
    ended: str
    note: str
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    curves: list[dict[str, float]] = field(default_factory=list)
    results: dict[str, float] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)

    def content(self) -> str:
        """Computes the sha256 of all fields except `note`, which contains the path of the experiment file."""
        return digest({key: value for key, value in asdict(self).items() if key != "note"})


def mlflow_runs(experiment: Experiment, layout: Layout) -> list[MlflowRun]:
    """Reads the content of all MLflow runs of a finished experiment from its files. Nothing is sent to MLflow.

    The files below results/EXPERIMENT are read: records (the JSON file beside an output: its inputs, settings, code
    hash and hashes of the outputs), outcomes, training curves, tables and figures.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        layout: object that gives the paths of the experiment's files below results/EXPERIMENT, `experiment.layout`.

    Returns:
        A list of `MlflowRun` (name, parent, times, tags, parameters, metrics), parents before children: `summary`, one
        run for each pair of teacher and student, one for each teacher, one for each trained student.

    Raises:
        FileNotFoundError: a file of the experiment does not exist yet.
        UserError: a file of outcomes (one row per test image: which attacks fool the network) is damaged.
    """
    models = [_model(f"teacher/{name}", SUMMARY, layout.teacher(name), experiment) for name in experiment.teachers]
    for run in experiment.runs:
        folder, group = layout.student(run.teacher, run.student, run.method, run.seed), f"{run.teacher}/{run.student}"
        models.append(_model(f"{group}/{run.method}/seed-{run.seed}", group, folder, experiment))
    pairs = dict.fromkeys((run.teacher, run.student) for run in experiment.runs)
    return [_summary(experiment, layout, models), *(_group(*pair, models) for pair in pairs), *models]


def _model(name: str, parent: str, folder: Path, experiment: Experiment) -> MlflowRun:
    """Reads the run of one trained network, a teacher or a student, from its folder."""
    layout = experiment.layout
    record, outcomes = read_json(layout.training_record(folder)), layout.outcomes(folder)
    files = {Path(file).stem: folder / Path(file).name for file in record["outputs"]} | {"outcomes": outcomes}
    hashes = {f"dvc.{artefact}": md5(file) for artefact, file in files.items()}
    git = {"git_commit": record["git"]["commit"], "git_dirty": str(record["git"]["dirty"])} if record["git"] else {}
    rows = values_of(experiment, model_in(experiment, folder), experiment.evaluation.metrics)
    cells = {"/".join([*(getattr(row, key) for key in GROUP), row.metric]): row.value for row in rows.itertuples()}
    return MlflowRun(
        name,
        parent,
        record["time"]["started"],
        record["time"]["ended"],
        _note(cells, layout.tables / "main.csv", experiment),
        tags={
            "table": str(layout.tables / "main.csv"),
            "cells": " ".join(cells),
            "code": record["code"],
            "record": sha256(layout.training_record(folder)),
            **hashes,
            **git,
        },
        params={key: str(value) for key, value in _flat(record["settings"])},
        curves=read_json_lines(files["metrics"]) if "metrics" in files else [],  # an imported teacher has none
        results={f"test_{row.checkpoint}_{row.metric}": round(row.value, 4) for row in rows.itertuples()},
        data=read_json(layout.data),
    )


def _group(teacher: str, student: str, models: list[MlflowRun]) -> MlflowRun:
    """Makes the parent run of all methods and seeds of one student by one teacher."""
    name = f"{teacher}/{student}"
    taught = "trained without a teacher" if teacher == NO_TEACHER else f"distilled from teacher `{teacher}`"
    members = [model for model in models if model.parent == name]
    return MlflowRun(name, SUMMARY, *_span(members), f"Student `{student}`, {taught}: a run per method and seed.")


def _summary(experiment: Experiment, layout: Layout, models: list[MlflowRun]) -> MlflowRun:
    files = sorted(file for file in layout.tables.iterdir() if not file.name.endswith(".record.json"))
    for teacher, student in experiment.comparisons:
        files += sorted((layout.figures / teacher / student).iterdir())
    note = f"Experiment `{experiment.name}`: its tables and figures are artifacts of this run."
    hashes = {str(file): sha256(file) for file in files}
    return MlflowRun(SUMMARY, None, *_span(models), note, artifacts=hashes)


def _span(models: Iterable[MlflowRun]) -> tuple[str, str]:
    """Returns the first start and the last end of runs."""
    return min(model.started for model in models), max(model.ended for model in models)


def _note(cells: dict[str, float], table: Path, experiment: Experiment) -> str:
    command = f"robust-distillation explain {list(cells)[-1]} {experiment.arguments}"
    lines = [f"This run's part of the cells of `{table}`, each a mean over the seeds. To trace a cell: `{command}`", ""]
    lines += ["| cell | this run (%) |", "|---|---:|"]
    values = ((cell, metrics.get(cell.rpartition("/")[2]), value) for cell, value in cells.items())
    return "\n".join([
        *lines,
        *(f"| `{cell}` | {number_of(metric.name)(value)}{' (a fraction)' * (metric.scale == 1)} |"
          for cell, metric, value in values),
    ])  # fmt: skip


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield prefix, value
        return
    for key, inner in value.items():
        yield from _flat(inner, f"{prefix}.{key}" if prefix else key)
