"""Imports finished runs into MLflow. Training never talks to MLflow: this one serial step reads the files it left.

A run is found by its tag `run`; its tag `content`, the hash of all that was imported, is written last. So importing
twice changes nothing, a run whose files changed is replaced, and an import that was killed is completed by the next.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from robust_distillation.config import Experiment
from robust_distillation.evaluation.outcomes import read_outcomes
from robust_distillation.evaluation.statistics import accuracies
from robust_distillation.files import digest, read_json, read_json_lines, sha256
from robust_distillation.layout import Layout

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
DEFAULT_STORE = "sqlite:///mlflow.db"
METRICS_PER_CALL = 1000  # MLflow's limit


@dataclass
class Finished:
    """What one run brings to MLflow."""

    name: str
    record: dict[str, Any]
    files: list[Path]
    curves: list[dict[str, Any]]
    results: dict[str, float] = field(default_factory=dict)
    artifacts: list[Path] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    def content(self) -> str:
        return digest(
            {"record": self.record, "files": {str(path): sha256(path) for path in self.files + self.artifacts}}
        )


def finished_runs(experiment: Experiment, layout: Layout) -> Iterator[Finished]:
    folders = {f"teacher/{name}": layout.teacher(name) for name in experiment.teachers}
    for run in experiment.runs:
        name = f"{run.teacher}/{run.student}/{run.method}/seed-{run.seed}"
        folders[name] = layout.student(run.teacher, run.student, run.method, run.seed)
    for name, folder in folders.items():
        outcomes = layout.outcomes(folder)
        found = accuracies(read_outcomes([outcomes]))
        record = read_json(folder / "record.json")
        curves = [file for file in [folder / "metrics.jsonl"] if file.is_file()]  # none of an imported teacher
        yield Finished(
            name,
            record,
            [*curves, outcomes],
            [line for file in curves for line in read_json_lines(file)],
            {f"test_{row.checkpoint}_{row.metric}": row.value for row in found.itertuples()},
            tags={"git_commit": (record["git"] or {}).get("commit", ""), "code": record["code"]},
        )


def import_runs(experiment: Experiment, layout: Layout) -> dict[str, str]:
    """Run name to MLflow run id, for every run of the experiment and for its summary, the parent of the others."""
    from mlflow import MlflowClient

    client = MlflowClient(store())
    place = _experiment(client, experiment.name)
    shown = sorted(layout.tables.iterdir())
    for teacher, student in experiment.pairs:
        shown += sorted((layout.figures / teacher / student).iterdir())
    summary = Finished("summary", {"settings": {}, "time": {}}, [], [], artifacts=shown)
    ids = {"summary": _import(client, place, summary, layout, parent=None)}
    for finished in finished_runs(experiment, layout):
        ids[finished.name] = _import(client, place, finished, layout, parent=ids["summary"])
    for run in client.search_runs([place], max_results=50_000):
        if run.info.run_id not in ids.values():  # of a method or seed that the experiment no longer has
            client.delete_run(run.info.run_id)
    return ids


def store() -> str:
    """Where the runs go: a database in the checkout unless MLFLOW_TRACKING_URI says otherwise."""
    return os.environ.get("MLFLOW_TRACKING_URI", DEFAULT_STORE)


def _experiment(client: Any, name: str) -> str:
    """The id of the MLflow experiment `name`, made where it is missing."""
    found = client.get_experiment_by_name(name)
    if found:
        return found.experiment_id
    # Beside a database of our own the artifacts lie in the checkout; a server says itself where it keeps them.
    location = (Path("mlartifacts") / name).resolve().as_uri() if store() == DEFAULT_STORE else None
    # The kind makes the UI open on training runs rather than on its pages for language models.
    return client.create_experiment(name, location, tags={"mlflow.experimentKind": "custom_model_development"})


def _import(client: Any, place: str, finished: Finished, layout: Layout, parent: str | None) -> str:
    from mlflow.entities import Metric, Param, RunTag

    content = finished.content()
    for old in client.search_runs([place], f"tags.run = '{finished.name}'"):
        if old.data.tags.get("content") == content:
            if parent:
                client.set_tag(old.info.run_id, "mlflow.parentRunId", parent)
            return old.info.run_id
        client.delete_run(old.info.run_id)

    start = _milliseconds(finished.record["time"].get("started"))
    tags = {"run": finished.name, **finished.tags} | ({"mlflow.parentRunId": parent} if parent else {})
    run = client.create_run(place, start_time=start, tags=tags, run_name=finished.name).info.run_id
    metrics = [
        Metric(key, float(value), start, int(line["epoch"]))
        for line in finished.curves
        for key, value in line.items()
        if key != "epoch"
    ]
    metrics += [Metric(key, float(value), start, 0) for key, value in finished.results.items()]
    for first in range(0, len(metrics), METRICS_PER_CALL):
        client.log_batch(run, metrics=metrics[first : first + METRICS_PER_CALL])
    client.log_batch(run, params=[Param(key, str(value)) for key, value in _flat(finished.record["settings"])])
    for path in finished.artifacts:
        client.log_artifact(run, path, str(path.relative_to(layout.root).parent))
    client.set_terminated(run, end_time=_milliseconds(finished.record["time"].get("ended")))
    client.log_batch(run, tags=[RunTag("content", content)])
    return run


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield prefix, value
        return
    for key, inner in value.items():
        yield from _flat(inner, f"{prefix}.{key}" if prefix else key)


def _milliseconds(time: str | None) -> int:
    return int((pd.Timestamp(time) if time else pd.Timestamp.now("UTC")).timestamp() * 1000)
