"""Writes records: the JSON file beside an artefact with its inputs, hashes, code fingerprint and settings.

A record also has the time, machine, versions and git commit. No step that computes reads a record.
"""

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
    """Measurement of a job's time and energy from its creation on, for the job's record.

    A record is the JSON file beside an output: its inputs, settings, code hash and hashes of the outputs.
    `pipeline.run` creates a recorder before each job, and its function `write` writes the record at the end. A job is
    one run of a step, such as the training of one student.

    Attributes:
        step: name of the job's step of the workflow, for example `attack`.
        settings: settings on which the outputs depend, as JSON values.
        code: code hash, a hash of the source code that the output depends on: 64 hexadecimal digits, from
            `pipeline.fingerprint.fingerprint`.
        started: time of the creation, in UTC.
        meter: the measurement of energy; `meter.read()` returns the joules so far.
    """

    def __init__(self, step: str, settings: dict[str, Any], code: str):
        """Starts to measure time and energy.

        Args:
            step: name of the job's step of the workflow, for example `attack`.
            settings: settings on which the outputs depend, as JSON values, for example `step.settings` of the job.
            code: code hash, a hash of the source code that the output depends on: 64 hexadecimal digits, from
                `pipeline.fingerprint.fingerprint`.
        """
        self.step, self.settings, self.code = step, settings, code
        self.started = datetime.now(UTC)
        self.meter = Meter()

    def configuration(self, inputs: Mapping[Path, str]) -> dict[str, Any]:
        """Returns everything that the outputs of the job depend on, as a dict that can be written as JSON.

        Args:
            inputs: path of each file that the job read, to its sha256.

        Returns:
            `step` (name of the job's step, for example `attack`), `settings`, `code` (code hash) and `inputs` (path as
            text to sha256).
        """
        hashes = {str(file): digest for file, digest in inputs.items()}
        return {"step": self.step, "settings": self.settings, "code": self.code, "inputs": hashes}

    def write(
        self,
        path: str | Path,
        inputs: Mapping[Path, str],
        outputs: Iterable[Path],
        work: ResumableJob | None = None,
        **more: Any,
    ) -> None:
        """Writes the record, a JSON file.

        It has the entries of `Recorder.configuration` (`step`, `settings`, `code`, `inputs`), and `outputs` (path to
        sha256), `git`, `versions`, `hardware`, `time`, `energy` (joules, or None if not known) and `peak_memory_bytes`.
        Time and energy run from the creation of this object.

        Args:
            path: file of the record.
            inputs: path of each file that the job read, to its sha256.
            outputs: paths of the files that the job made. The files are hashed here.
            work: saved state of a job that can be stopped and resumed. The seconds of its earlier starts are added. The
                energy of the earlier starts is not known, so after a resumption `energy` is None. None: the job was not
                resumed.
            **more: further entries of the record, as JSON values.
        """
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
    """Runs a git command in the current folder, to learn the commit of a result.

    Args:
        *command: arguments of git, for example `"rev-parse", "HEAD"`.

    Returns:
        The standard output of git. None if git fails or is not installed.
    """
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
    """Returns the versions of the installed packages among PACKAGES."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _hardware() -> dict[str, Any]:
    torch = sys.modules.get("torch")  # a step that has not imported torch used no GPU
    gpu = torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None
    return {"machine": platform.machine(), "cpu": processor(), "cores": os.cpu_count(), "gpu": gpu}


def processor() -> str:
    """Returns the name of the processor with its family and model, for example `AMD EPYC, family 25 model 17`.

    A virtual machine may hide the exact name, but not family and model. Where /proc/cpuinfo cannot be read (not Linux),
    the name is that of `platform.processor`, which may be empty.
    """
    try:
        pairs = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    except OSError:
        return platform.processor()
    facts = {name.strip(): value.strip() for name, _, value in reversed(pairs)}  # of the first core
    name = facts.get("model name", platform.processor())
    if {"cpu family", "model"} <= facts.keys():
        name += f", family {facts['cpu family']} model {facts['model']}"
    return name
