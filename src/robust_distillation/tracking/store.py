"""Where MLflow keeps the runs: a database in the checkout unless MLFLOW_TRACKING_URI says otherwise."""

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


def store() -> str:
    """The URI of the store."""
    return os.environ.get("MLFLOW_TRACKING_URI", DEFAULT_STORE)


def client() -> Any:
    """Raises UserError where nobody answers; MLflow itself would try again for minutes."""
    from mlflow import MlflowClient

    if not _database() and not _answers():
        raise UserError(
            f"MLFLOW_TRACKING_URI={store()}: nobody answers there. Start the server, or unset the variable to use "
            f"{DEFAULT_STORE}"
        )
    return MlflowClient(store())


def experiment_id(client: Any, name: str) -> str:
    """The id of the MLflow experiment `name`, made where it is missing."""
    location = _artifacts(name)
    found = client.get_experiment_by_name(name)
    if found and location and found.artifact_location != location:
        # The database was moved, and MLflow knows files by their absolute paths only: all is imported again.
        client.rename_experiment(found.experiment_id, f"{name} ({found.experiment_id}: {found.artifact_location})")
        client.delete_experiment(found.experiment_id)
        found = None
    if not found:
        # The kind makes the UI open on training runs rather than on its pages for language models.
        return client.create_experiment(name, location, tags={"mlflow.experimentKind": "custom_model_development"})
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return found.experiment_id


def run_id(experiment: str, run: str) -> str | None:
    """The id, in the store of now, of the MLflow run that a run (wide/small/rslad/seed-0) was imported as; None where
    it was not, or where there is no store."""
    database = _database()
    if not (database.is_file() if database else _answers()):
        return None
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        client = MlflowClient(store())
        place = client.get_experiment_by_name(experiment)
        found = client.search_runs([place.experiment_id], f"tags.run = '{run}'") if place else []
    except (MlflowException, SQLAlchemyError):  # no database of MLflow's, or of another version of it
        return None
    return next((run.info.run_id for run in found if "content" in run.data.tags), None)


def _database() -> Path | None:
    """The file of an SQLite store."""
    uri = urlsplit(store())
    return Path(uri.path[1:]) if uri.scheme.startswith("sqlite") else None


def _artifacts(name: str) -> str | None:
    """Where the artifacts of an experiment go: beside the database; a server says itself where it keeps them."""
    if urlsplit(store()).scheme in ("http", "https"):
        return None
    folder = (_database() or Path("mlflow.db")).absolute().parent
    return (folder / "mlartifacts" / name).as_uri()


def _answers() -> bool:
    """Whether somebody listens at the store's host and port; True where the URI names none."""
    uri = urlsplit(store())
    if not uri.hostname:
        return True
    try:
        socket.create_connection((uri.hostname, uri.port or PORTS[uri.scheme.partition("+")[0]]), timeout=5).close()
    except OSError:
        return False
    return True
