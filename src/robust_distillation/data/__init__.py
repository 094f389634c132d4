"""The datasets: one file each, with their facts (`INFO`) and how their splits are read (`read`)."""

from __future__ import annotations

from robust_distillation.data.info import DatasetInfo
from robust_distillation.registry import Registry

__all__ = ["DatasetInfo", "info", "names", "registry"]

registry = Registry("dataset", __name__, besides=("dataset", "info", "prepared", "views"))
names = registry.names


def info(name: str) -> DatasetInfo:
    return registry.module(name).INFO
