"""Servers for the tests, on 127.0.0.1 and a port that was free, ended by the process that was started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conftest import REPOSITORY, environment


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def mlflow_server(folder: Path, *arguments: str, port: int) -> Iterator[subprocess.Popen]:
    """`mlflow server` at http://127.0.0.1:PORT, its log in `folder`; the process leads a group of its own."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    variables = environment(REPOSITORY) | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    log = folder / f"mlflow-{port}.log"
    with log.open("ab") as stream:
        server = subprocess.Popen(
            [*command, *arguments], cwd=folder, env=variables, stdout=stream, stderr=stream, start_new_session=True
        )
        try:
            _wait(f"http://127.0.0.1:{port}/health", server, log)
            yield server
        finally:
            kill(server)


def kill(server: subprocess.Popen) -> None:
    """kill -9 for the server and its workers."""
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def _wait(url: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(600):
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"{url} does not answer\n{log.read_text()}")
