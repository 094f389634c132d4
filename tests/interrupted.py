"""An import into MLflow in a process of its own that counts its transactions, and may end itself before one of them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# What every import takes seconds to load; a fork server loads it once.
PRELOAD = ["interrupted", "mlflow", "pandas", "robust_distillation.tracking.runs", "sqlalchemy"]


def import_tree(tree: Path, uri: str, killed_before: int | None, count) -> None:
    """count: a shared integer, the transactions so far; kill -9 instead of number `killed_before`."""
    from sqlalchemy import Engine, event

    from robust_distillation.config import load
    from robust_distillation.layout import Layout
    from robust_distillation.tracking.runs import import_runs

    @event.listens_for(Engine, "commit")
    def _(connection) -> None:
        count.value += 1
        if count.value == killed_before:
            os.kill(os.getpid(), signal.SIGKILL)

    os.chdir(tree)
    os.environ["MLFLOW_TRACKING_URI"] = uri
    import_runs(load("params.yaml", "tiny.yaml"), Layout("tiny"))
