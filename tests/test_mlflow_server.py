"""A real MLflow server on PostgreSQL: the import goes there as into a database of our own, also when it dies."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import services
from conftest import environment
from test_mlflow import LAYOUT, RSLAD, ids, state, tiny

from robust_distillation.tracking import store
from robust_distillation.tracking.runs import import_runs

pytestmark = pytest.mark.services
SERVERS = Path("/usr/lib/postgresql")  # Debian's, by version, not on the PATH


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """The URI of an empty database."""
    if not (found := sorted(SERVERS.glob("*/bin/initdb"))):
        pytest.skip(f"needs a PostgreSQL server, and none is under {SERVERS}: apt-get install postgresql")
    binaries = found[-1].parent
    user = "postgres" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))  # pytest's own folders are closed to other users
    port = services.free_port()
    if user:
        shutil.chown(folder, user, user)

    def run(*command: str) -> None:
        with (folder / "commands.log").open("ab") as log:
            subprocess.run(
                [binaries / command[0], *command[1:]], cwd=folder, user=user, stdout=log, stderr=log, check=True
            )

    data = str(folder / "data")
    run("initdb", "-D", data, "-U", "mlflow", "-A", "trust", "--no-sync")
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories='' -c fsync=off"
    run("pg_ctl", "start", "-w", "-t", "120", "-D", data, "-o", options, "-l", str(folder / "server.log"))
    try:
        run("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "mlflow", "mlflow")
        yield f"postgresql://mlflow@127.0.0.1:{port}/mlflow"
    finally:
        run("pg_ctl", "stop", "-w", "-m", "fast", "-D", data)
        shutil.rmtree(folder)


def number_of_runs(database: str) -> int:
    import psycopg2

    connection = psycopg2.connect(database)
    try:
        with connection.cursor() as cursor:
            cursor.execute("select count(*) from runs")
            return cursor.fetchone()[0]
    finally:
        connection.close()


def test_import_through_a_server_that_dies_on_the_way(tree, postgresql, tmp_path, monkeypatch):
    port = services.free_port()
    uri = f"http://127.0.0.1:{port}"
    monkeypatch.chdir(tree)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    arguments = ("--backend-store-uri", postgresql, "--artifacts-destination", str(tmp_path / "artifacts"))
    track = [sys.executable, "-m", "robust_distillation.cli", "track", "--overlay", "tiny.yaml"]

    with services.mlflow_server(tmp_path, *arguments, port=port) as server:
        variables = environment(tree) | {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
        cut_off = subprocess.Popen(track, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        while number_of_runs(postgresql) < 3 and cut_off.poll() is None:
            time.sleep(0.02)
        services.kill(server)
        assert cut_off.wait() == 1, cut_off.stdout.read()

    with services.mlflow_server(tmp_path, *arguments, port=port):
        first = import_runs(tiny(), LAYOUT)
        client = store.client()
        before, known = state(client), ids(client)
        assert import_runs(tiny(), LAYOUT) == first
        assert (state(client), ids(client)) == (before, known)
        assert store.run_id("tiny", RSLAD) == known[RSLAD]
        assert before[RSLAD]["tags"]["mlflow.parentRunId"] == "wide/small"
        assert before["wide/small"]["tags"]["mlflow.parentRunId"] == "summary"
        table = client.download_artifacts(known["summary"], "tables/main.csv", str(tmp_path))
        assert Path(table).read_bytes() == (LAYOUT.tables / "main.csv").read_bytes()

        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
        assert import_runs(tiny(), LAYOUT) == first
        assert state(store.client()) == before  # curves, params, tags and artifacts
