"""Formats values of a record (the JSON file beside an artefact) as text."""

from __future__ import annotations

from typing import Any


def seconds(record: dict[str, Any]) -> float:
    """Returns the seconds that a job took, summed over all starts if it was stopped and resumed.

    Args:
        record: content of the job's record, the JSON file beside an output: its inputs, settings, code hash and hashes
            of the outputs, and times. `record["time"]["seconds"]` is returned.
    """
    return record["time"]["seconds"]


def duration(seconds: float) -> str:
    """Formats a duration, for example `59.4 s`, `1 min 01 s` or `2 h 01 min`.

    Args:
        seconds: the duration in seconds, at least 0.
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def when(record: dict[str, Any]) -> str:
    """Formats start and duration of a job, for example `2026-01-31 12:00 UTC, 3 min 05 s in 2 sessions`.

    The number of sessions, starts of a job that was stopped and resumed, is left out if it is 1.

    Args:
        record: content of the job's record, the JSON file beside an output: its inputs, settings, code hash and hashes
            of the outputs, and times. `record["time"]` is used: `started` (ISO 8601, UTC), `seconds` and `sessions`.
    """
    time = record["time"]
    sessions = f" in {time['sessions']} sessions" if time["sessions"] > 1 else ""
    return f"{minute(time['started'])} UTC, {duration(seconds(record))}{sessions}"


def versions(record: dict[str, Any]) -> str:
    """Lists the packages of a record with their versions, for example `python 3.12.3, torch 2.8.0`.

    Args:
        record: content of a record, the JSON file beside an output: its inputs, settings, code hash and hashes of the
            outputs, and versions of packages. `record["versions"]`, a dict of name to version, is used.
    """
    return ", ".join(f"{package} {version}" for package, version in record["versions"].items())


def minute(time: str) -> str:
    """Formats a time without seconds, for example `2026-01-31 12:00`.

    Args:
        time: time in UTC as ISO 8601, for example `2026-01-31T12:00:59+00:00`.
    """
    return time[:16].replace("T", " ")


def machine(hardware: dict[str, Any]) -> str:
    """Formats the hardware on which a step ran, for example `AMD EPYC, family 25 model 17, 2 cores`.

    Args:
        hardware: the entry `hardware` of a record: `cpu` and `gpu` (names; gpu None if there was none) and `cores` (a
            number). The GPU's name comes last, if there was one.
    """
    gpu = f", {hardware['gpu']}" if hardware["gpu"] else ""
    return f"{hardware['cpu']}, {hardware['cores']} cores{gpu}"


def commit(record: dict[str, Any], whole: bool = False) -> str:
    """Formats the git commit of a record, for example `commit 56a940d74f9d with local changes`.

    The note on local changes is added if tracked files differed from the commit.

    Args:
        record: content of a record, the JSON file beside an output: its inputs, settings, code hash and hashes of the
            outputs, and the git commit. `record["git"]` is used: `{"commit": 40 hexadecimal digits, "dirty": bool}`. If
            it is None, the text is `outside a repository`.
        whole: True for all 40 digits of the commit, False for the first 12.
    """
    if record["git"] is None:
        return "outside a repository"
    changed = " with local changes" if record["git"]["dirty"] else ""
    return f"commit {record['git']['commit'][: None if whole else 12]}{changed}"
