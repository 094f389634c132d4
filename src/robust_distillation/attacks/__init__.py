"""The named attacks: one file each, with `attack(model, x, labels, threat, seed)` returning x'."""

from __future__ import annotations

from robust_distillation.registry import Registry

__all__ = ["names", "registry"]

registry = Registry("attack", __name__, besides=("core", "apgd"))
names = registry.names
