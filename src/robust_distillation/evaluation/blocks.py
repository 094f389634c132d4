"""The unit of attacking: a fixed block of test images with its own seed. Outcomes then do not depend on how many jobs
share the work, and anyone can repeat one block alone."""

from __future__ import annotations

from dataclasses import dataclass

from robust_distillation.randomness import derived_seed


@dataclass(frozen=True)
class Block:
    number: int
    start: int
    stop: int  # exclusive
    seed: int


def blocks(images: int, size: int, seed: int) -> list[Block]:
    """The first `images` images cut into blocks of `size`; the last may be smaller."""
    starts = range(0, images, size)
    return [
        Block(i, start, min(start + size, images), derived_seed(seed, "block", i) % 2**31)
        for i, start in enumerate(starts)
    ]


def shard(all_blocks: list[Block], number: int, of: int) -> list[Block]:
    """The blocks of shard `number`, counted from 1, of `of`."""
    return all_blocks[number - 1 :: of]
