"""The named attacks, one module each.

A module `NAME.py` is the attack NAME of experiment files. It defines:

- `attack(model, x, labels, threat, seed)`: returns the adversarial images x' [N,C,H,W].
- `NORMS`: the norms for which the attack is defined, a tuple of `linf` and `l2`. Both, if it is missing.
- `CLASSES`: the smallest number of classes that the attack needs. 2, if it is missing.
"""

from __future__ import annotations

from robust_distillation.registry import Registry

__all__ = ["names", "registry"]

registry = Registry("attack", __name__, exclude=("core", "apgd"), functions=("attack",))
names = registry.names
