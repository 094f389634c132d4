"""The record beside an artefact: what it was made of, by what code, where and when. No computing step reads one."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from robust_distillation.files import sha256, write_json
from robust_distillation.pipeline.energy import Meter
from robust_distillation.resume import ResumableJob

PACKAGES = (
    "robust-distillation",
    "torch",
    "torchvision",
    "numpy",
    "pandas",
    "pyautoattack",
    "safetensors",
    "scikit-learn",
    "scipy",
    "pillow",
    "robustbench",
    "snakemake",
)


class Recorder:
    """Starts the clock; `write` leaves the record once the step has made its files."""

    def __init__(self, step: str, settings: dict[str, Any], code: str):
        self.step, self.settings, self.code = step, settings, code
        self.started = datetime.now(UTC)
        self.meter = Meter()

    def configuration(self, inputs: Mapping[Path, str]) -> dict[str, Any]:
        """What the step's files depend on. inputs: file to sha256."""
        read = {str(file): known for file, known in inputs.items()}
        return {"step": self.step, "settings": self.settings, "code": self.code, "inputs": read}

    def write(
        self,
        path: str | Path,
        inputs: Mapping[Path, str],
        outputs: Iterable[Path],
        work: ResumableJob | None = None,
        **more: Any,
    ) -> None:
        """inputs: file to sha256. work: its earlier sessions count, too; what energy they used is not known."""
        ended = datetime.now(UTC)
        spent, sessions = (ended - self.started).total_seconds(), 1
        started = self.started
        if work and work.sessions > 1:
            started, spent, sessions = work.started, spent + work.spent, work.sessions
        record = {
            **self.configuration(inputs),
            "outputs": {str(file): sha256(file) for file in outputs},
            "git": _commit(),
            "versions": {"python": platform.python_version(), **_versions()},
            "hardware": _hardware(),
            "time": {
                "started": started.isoformat(timespec="seconds"),
                "ended": ended.isoformat(timespec="seconds"),
                "seconds": round(spent, 3),
                "sessions": sessions,
            },
            "energy": self.meter.read() if sessions == 1 else None,
            "peak_memory_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,  # Linux counts in KiB
            **more,
        }
        write_json(path, record)


def git(*command: str) -> str | None:
    """Returns what git prints, or None if it fails or is not installed."""
    try:
        result = subprocess.run(["git", *command], capture_output=True, text=True)
    except OSError:
        return None
    return result.stdout if result.returncode == 0 else None


def _commit() -> dict[str, Any] | None:
    """Returns the commit that is checked out and whether tracked files differ from it; None outside a repository."""
    commit, status = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    return None if commit is None or status is None else {"commit": commit.strip(), "dirty": bool(status.strip())}


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _hardware() -> dict[str, Any]:
    torch = sys.modules.get("torch")  # a step that computed nothing with it has no GPU to tell of
    gpu = torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None
    return {"machine": platform.machine(), "cpu": processor(), "cores": os.cpu_count(), "gpu": gpu}


def processor() -> str:
    """Its name and, since a virtual machine may hide which one of a maker's it is, its family and model."""
    try:
        pairs = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    except OSError:
        return platform.processor()
    known = {name.strip(): value.strip() for name, _, value in reversed(pairs)}  # of the first core
    name = known.get("model name", platform.processor())
    if {"cpu family", "model"} <= known.keys():
        name += f", family {known['cpu family']} model {known['model']}"
    return name
