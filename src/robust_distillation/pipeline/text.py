"""Formats values of a record (the JSON file beside an artefact) as text."""

from __future__ import annotations

from typing import Any


def seconds(record: dict[str, Any]) -> float:
    """Returns the seconds that a step took, over all its sessions."""
    return record["time"]["seconds"]


def duration(seconds: float) -> str:
    """Formats a duration: `59.4 s`, `1 min 01 s`, `2 h 01 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def when(record: dict[str, Any]) -> str:
    """Formats start and duration of a step: `2026-01-31 12:00 UTC, 3 min 05 s in 2 sessions`."""
    time = record["time"]
    sessions = f" in {time['sessions']} sessions" if time["sessions"] > 1 else ""
    return f"{minute(time['started'])} UTC, {duration(seconds(record))}{sessions}"


def versions(record: dict[str, Any]) -> str:
    """Lists the packages of a record with their versions: `python 3.12.3, torch 2.8.0`."""
    return ", ".join(f"{package} {version}" for package, version in record["versions"].items())


def minute(time: str) -> str:
    """Formats a time (ISO 8601 in UTC) without seconds: `2026-01-31 12:00`."""
    return time[:16].replace("T", " ")


def machine(hardware: dict[str, Any]) -> str:
    """Formats the `hardware` of a record: processor, number of cores and GPU."""
    gpu = f", {hardware['gpu']}" if hardware["gpu"] else ""
    return f"{hardware['cpu']}, {hardware['cores']} cores{gpu}"


def commit(record: dict[str, Any], whole: bool = False) -> str:
    """Formats the git commit of a record, with a note if tracked files had changed.

    Args:
        record: the record.
        whole: true for all 40 digits of the commit, false for the first 12.
    """
    if record["git"] is None:
        return "outside a repository"
    changed = " with local changes" if record["git"]["dirty"] else ""
    return f"commit {record['git']['commit'][: None if whole else 12]}{changed}"
