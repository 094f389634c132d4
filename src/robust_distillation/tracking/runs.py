"""Imports the runs of an experiment into MLflow.

Training never talks to MLflow: this one serial step reads the files that training wrote. An MLflow run is identified
by two tags: `run`, its name, and `content`, a hash of all that was imported, which is written last. So importing twice
changes nothing, a run whose files changed is replaced, and the next import completes one that was killed.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from robust_distillation.config import Experiment
from robust_distillation.layout import Layout
from robust_distillation.tracking import store
from robust_distillation.tracking.mlflow_run import MlflowRun, mlflow_runs

METRICS_PER_CALL, PARAMS_PER_CALL = 900, 100  # MLflow takes at most 1000 values in one call, at most 100 of them params
DIGEST_LENGTH = 36  # letters that MLflow keeps of a dataset's digest
PARENT = "mlflow.parentRunId"  # MLflow's tag for a parent run


def import_runs(experiment: Experiment, layout: Layout) -> dict[str, str]:
    """Imports all runs of a finished experiment into the MLflow store, and deletes stored runs that are out of date.

    The store is `MLFLOW_TRACKING_URI`, or sqlite:///mlflow.db if that environment variable is not set. There is one
    MLflow run for each teacher and trained student, and parent runs that group them. A run whose content the store has
    already is not imported again. So a second call changes nothing, and a call after an interrupted one completes it.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it. The MLflow
            experiment has the same name.
        layout: object that gives the paths of the experiment's files below results/EXPERIMENT, `experiment.layout`.

    Returns:
        Name of each run, for example `wide/small/rslad/seed-0`, to the sha256 of its content, which does not depend on
        the store.

    Raises:
        FileNotFoundError: a file of the experiment does not exist yet. Nothing was imported.
        UserError: the store cannot be reached. Nothing was imported.
    """
    runs = mlflow_runs(experiment, layout)
    client = store.client()
    experiment_id = store.experiment_id(client, experiment.name)
    old = client.search_runs([experiment_id], max_results=50_000)
    by_content = {(run.data.tags.get("run"), run.data.tags.get("content")): run for run in old}
    contents, ids = {}, {}
    for run in runs:
        content, parent = run.content(), ids.get(run.parent)
        imported = by_content.get((run.name, content))
        if imported is None:
            ids[run.name] = _import(client, experiment_id, run, content, parent)
        else:
            ids[run.name] = imported.info.run_id
            if parent and imported.data.tags.get(PARENT) != parent:  # the parent was replaced
                client.set_tag(imported.info.run_id, PARENT, parent)
        contents[run.name] = content
    for run in old:  # replaced, incomplete, or of a method or seed that the experiment no longer has
        if run.info.run_id not in ids.values():
            client.delete_run(run.info.run_id)
    return contents


def _import(client: Any, experiment_id: str, run: MlflowRun, content: str, parent: str | None) -> str:
    """Creates an MLflow run with all its content and returns its id. `parent` is the id of the parent run, if any."""
    from mlflow.entities import Metric, Param

    start = _milliseconds(run.started)
    tags = {"run": run.name, **run.tags, "mlflow.note.content": run.note} | ({PARENT: parent} if parent else {})
    if "git_commit" in run.tags:
        tags["mlflow.source.git.commit"] = run.tags["git_commit"]
    run_id = client.create_run(experiment_id, start, tags, run.name).info.run_id
    metrics = [
        Metric(key, float(value), start, int(line["epoch"]))
        for line in run.curves
        for key, value in line.items()
        if key != "epoch"
    ]
    metrics += [Metric(key, value, start, 0) for key, value in run.results.items()]
    params = [Param(key, value) for key, value in run.params.items()]
    while metrics or params:
        client.log_batch(run_id, metrics[:METRICS_PER_CALL], params[:PARAMS_PER_CALL])
        metrics, params = metrics[METRICS_PER_CALL:], params[PARAMS_PER_CALL:]
    if run.data:
        client.log_inputs(run_id, _splits(**run.data))
    for path in run.artifacts:
        client.log_artifact(run_id, path, "/".join(path.split("/")[2:-1]))  # without results/EXPERIMENT
    client.set_terminated(run_id, end_time=_milliseconds(run.ended))
    client.set_tag(run_id, "content", content)
    return run_id


def _splits(name: str, splits: dict[str, dict[str, Any]]) -> list[Any]:
    """Makes one MLflow dataset for each split.

    Args:
        name: name of the dataset.
        splits: split to a dict that describes it and holds its `sha256`.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    return [
        DatasetInput(
            Dataset(name, facts["sha256"][:DIGEST_LENGTH], "local", f"{name} {split}", profile=json.dumps(facts)),
            [InputTag("mlflow.data.context", split)],
        )
        for split, facts in splits.items()
    ]


def _milliseconds(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp() * 1000)
