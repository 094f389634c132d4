"""Every random number is a pure function of a seed and of what it is for, so that any step can be made again alone."""

from __future__ import annotations

import hashlib

import torch


def derived_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed from an experiment's seed and the purpose, e.g. (0, "attack", epoch, step)."""
    text = repr((seed, *purpose)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator: the same numbers whatever device the tensors go to."""
    return torch.Generator().manual_seed(derived_seed(seed, *purpose))
