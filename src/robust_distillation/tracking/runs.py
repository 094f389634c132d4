"""Imports finished runs into MLflow. Training never talks to MLflow: this one serial step reads the files it left.

A run is found by its tags `run`, its name, and `content`, the hash of all that was imported, which is written last. So
importing twice changes nothing, a run whose files changed is replaced, and an import that was killed is completed by
the next.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from robust_distillation.config import Experiment
from robust_distillation.layout import Layout
from robust_distillation.tracking import store
from robust_distillation.tracking.finished import Finished, finished_runs

METRICS_PER_CALL, PARAMS_PER_CALL = 900, 100  # MLflow takes 1000 in all and no more params than that
DIGEST_LENGTH = 36
PARENT = "mlflow.parentRunId"


def import_runs(experiment: Experiment, layout: Layout) -> dict[str, str]:
    """The name of each imported run and the hash of its content: the same in every store.

    Raises FileNotFoundError for a file that is not there yet, UserError where the store does not answer; both before
    anything is written.
    """
    runs = finished_runs(experiment, layout)
    client = store.client()
    place = store.experiment_id(client, experiment.name)
    old = client.search_runs([place], max_results=50_000)
    known = {(run.data.tags.get("run"), run.data.tags.get("content")): run for run in old}
    contents, ids = {}, {}
    for run in runs:
        content, parent = run.content(), ids.get(run.parent)
        there = known.get((run.name, content))
        if there is None:
            ids[run.name] = _import(client, place, run, content, parent)
        else:
            ids[run.name] = there.info.run_id
            if parent and there.data.tags.get(PARENT) != parent:  # the parent was replaced
                client.set_tag(there.info.run_id, PARENT, parent)
        contents[run.name] = content
    for run in old:  # replaced, cut off, or of a method or seed that the experiment no longer has
        if run.info.run_id not in ids.values():
            client.delete_run(run.info.run_id)
    return contents


def _import(client: Any, place: str, run: Finished, content: str, parent: str | None) -> str:
    from mlflow.entities import Metric, Param

    start = _milliseconds(run.started)
    tags = {"run": run.name, **run.tags, "mlflow.note.content": run.note} | ({PARENT: parent} if parent else {})
    if "git_commit" in run.tags:
        tags["mlflow.source.git.commit"] = run.tags["git_commit"]
    made = client.create_run(place, start, tags, run.name).info.run_id
    metrics = [
        Metric(key, float(value), start, int(line["epoch"]))
        for line in run.curves
        for key, value in line.items()
        if key != "epoch"
    ]
    metrics += [Metric(key, value, start, 0) for key, value in run.results.items()]
    params = [Param(key, value) for key, value in run.params.items()]
    while metrics or params:
        client.log_batch(made, metrics[:METRICS_PER_CALL], params[:PARAMS_PER_CALL])
        metrics, params = metrics[METRICS_PER_CALL:], params[PARAMS_PER_CALL:]
    if run.data:
        client.log_inputs(made, _splits(**run.data))
    for path in run.artifacts:
        client.log_artifact(made, path, "/".join(path.split("/")[2:-1]))  # without results/EXPERIMENT
    client.set_terminated(made, end_time=_milliseconds(run.ended))
    client.set_tag(made, "content", content)
    return made


def _splits(name: str, splits: dict[str, dict[str, Any]]) -> list[Any]:
    """MLflow's datasets: one for each split of a dataset."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    return [
        DatasetInput(
            Dataset(name, known["sha256"][:DIGEST_LENGTH], "local", f"{name} {split}", profile=json.dumps(known)),
            [InputTag("mlflow.data.context", split)],
        )
        for split, known in splits.items()
    ]


def _milliseconds(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp() * 1000)
