"""What a record says, in words."""

from __future__ import annotations

from typing import Any


def seconds(record: dict[str, Any]) -> float:
    return record["time"]["seconds"]


def duration(spent: float) -> str:
    """As people say it."""
    if spent < 60:
        return f"{spent:.1f} s"
    minutes, rest = divmod(round(spent), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def when(record: dict[str, Any]) -> str:
    time = record["time"]
    went_on = f" in {time['sessions']} sessions" if time["sessions"] > 1 else ""
    return f"{minute(time['started'])} UTC, {duration(seconds(record))}{went_on}"


def versions(record: dict[str, Any]) -> str:
    return ", ".join(f"{package} {version}" for package, version in record["versions"].items())


def minute(moment: str) -> str:
    """Records are in UTC."""
    return moment[:16].replace("T", " ")


def machine(hardware: dict[str, Any]) -> str:
    gpu = f", {hardware['gpu']}" if hardware["gpu"] else ""
    return f"{hardware['cpu']}, {hardware['cores']} cores{gpu}"


def commit(record: dict[str, Any], whole: bool = False) -> str:
    """The commit that a record names."""
    if record["git"] is None:
        return "outside a repository"
    changed = " with local changes" if record["git"]["dirty"] else ""
    return f"commit {record['git']['commit'][: None if whole else 12]}{changed}"
