"""Finds the MLflow store: the server or database of MLFLOW_TRACKING_URI, else an SQLite file in the current folder."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from robust_distillation.errors import UserError

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
DEFAULT_STORE = "sqlite:///mlflow.db"
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306}


def store_uri() -> str:
    """Returns the URI of the MLflow store: the environment variable MLFLOW_TRACKING_URI, or `sqlite:///mlflow.db` if it
    is not set.
    """
    return os.environ.get("MLFLOW_TRACKING_URI", DEFAULT_STORE)


def client() -> Any:
    """Connects to the MLflow store and returns an `mlflow.MlflowClient`.

    The store is `MLFLOW_TRACKING_URI`, or sqlite:///mlflow.db if that environment variable is not set.

    Raises:
        UserError: nothing listens at the host and port of the store. (MLflow alone would retry for minutes.)
    """
    from mlflow import MlflowClient

    if not _database() and not _answers():
        raise UserError(
            f"MLFLOW_TRACKING_URI={store_uri()}: nothing answers there. Start the server, or unset the variable to use "
            f"{DEFAULT_STORE}"
        )
    return MlflowClient(store_uri())


def experiment_id(client: Any, name: str) -> str:
    """Returns the id of an MLflow experiment. A missing MLflow experiment is created, and a deleted one is restored.

    MLflow stores absolute paths of artifacts. If the database was moved, so that the stored folder is no longer beside
    it, the old MLflow experiment is renamed and deleted, and a new one is created.

    Args:
        client: an `mlflow.MlflowClient`, from the function `client`.
        name: name of the experiment, for example `digits`.

    Returns:
        The id, as MLflow chose it, for example "1".
    """
    location = _artifacts(name)
    existing = client.get_experiment_by_name(name)
    if existing and location and existing.artifact_location != location:
        # The database was moved, and MLflow stores absolute paths of artifacts: all runs are imported again.
        old_name = f"{name} ({existing.experiment_id}: {existing.artifact_location})"
        client.rename_experiment(existing.experiment_id, old_name)
        client.delete_experiment(existing.experiment_id)
        existing = None
    if not existing:
        # This kind makes MLflow's UI open on training runs and not on its pages for language models.
        return client.create_experiment(name, location, tags={"mlflow.experimentKind": "custom_model_development"})
    if existing.lifecycle_stage == "deleted":
        client.restore_experiment(existing.experiment_id)
    return existing.experiment_id


def run_id(experiment: str, run: str) -> str | None:
    """Finds the id of an imported run in the MLflow store. Nothing is written.

    The store is `MLFLOW_TRACKING_URI`, or sqlite:///mlflow.db if that environment variable is not set.

    Args:
        experiment: name of the experiment, for example `digits`.
        run: name of the run, for example `wide/small/rslad/seed-0`.

    Returns:
        The id of the MLflow run, 32 hexadecimal digits. None if the run was not imported completely, or if the store
        cannot be reached or read.
    """
    database = _database()
    if not (database.is_file() if database else _answers()):
        return None
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        client = MlflowClient(store_uri())
        stored = client.get_experiment_by_name(experiment)
        runs = client.search_runs([stored.experiment_id], f"tags.run = '{run}'") if stored else []
    except (MlflowException, SQLAlchemyError, ImportError):  # no database of this MLflow, or its driver is missing
        return None
    return next((run.info.run_id for run in runs if "content" in run.data.tags), None)


def _database() -> Path | None:
    """Returns the file of an SQLite store. None for another kind of store."""
    uri = urlsplit(store_uri())
    return Path(uri.path[1:]) if uri.scheme.startswith("sqlite") else None


def _artifacts(name: str) -> str | None:
    """Returns the URI of the folder for an experiment's artifacts, beside the database.

    None if the store is a server, which chooses the folder.
    """
    if urlsplit(store_uri()).scheme in ("http", "https"):
        return None
    folder = (_database() or Path("mlflow.db")).absolute().parent
    return (folder / "mlartifacts" / name).as_uri()


def _answers() -> bool:
    """Returns true if a server listens at the store's host and port, or if the URI names no host."""
    uri = urlsplit(store_uri())
    port = uri.port or PORTS.get(uri.scheme.partition("+")[0])
    if not uri.hostname or port is None:  # the store's own library tells what is wrong
        return True
    try:
        socket.create_connection((uri.hostname, port), timeout=5).close()
    except OSError:
        return False
    return True
