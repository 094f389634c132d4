"""Random streams that depend only on a seed and a purpose, so that any training step can be repeated alone."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derived_seed(seed: int, *purpose: str | int) -> int:
    """Derives a seed from another seed and the purpose of the random numbers.

    Args:
        seed: the seed to derive from, for example that of a training.
        *purpose: words and numbers that name the purpose, for example "attack", epoch, step. Different purposes give
            independent seeds.

    Returns:
        A number in [0, 2^63). It is the same in every process and on every machine.
    """
    text = repr((seed, *purpose)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Returns a new CPU generator, seeded with `derived_seed(seed, *purpose)`.

    Numbers are always drawn on the CPU, so that they do not depend on the device that the tensors are moved to.

    Args:
        seed: the seed to derive from, for example that of a training.
        *purpose: words and numbers that name the purpose, for example "attack", epoch, step. Different purposes give
            independent numbers.
    """
    import torch

    return torch.Generator().manual_seed(derived_seed(seed, *purpose))
