"""Splits the test images into blocks: a block is a fixed set of test images, attacked together under one seed.

Since an attack's random numbers depend on the batch, a fixed block gives the same results however many jobs share the
work, and anyone can repeat one block alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from robust_distillation.randomness import derived_seed


@dataclass(frozen=True)
class Block:
    """A range of consecutive test images that are attacked together as one batch. `blocks` makes the objects.

    Attributes:
        number: position among the blocks, from 0.
        start: position in the test split of the first image.
        stop: position after the last image.
        seed: seed of every attack on this block, in [0, 2^31).
    """

    number: int
    start: int
    stop: int
    seed: int


def blocks(images: int, size: int, seed: int) -> list[Block]:
    """Cuts the first images of the test split into blocks, each of which is attacked as one batch under one seed.

    The random numbers of an attack depend on the batch. With fixed blocks, the results do not depend on how many jobs
    share the work.

    Args:
        images: number of images to cover, from the first one on.
        size: number of images in a block, `evaluation.block_size` of the experiment file. The last block may have
            fewer.
        seed: seed of the evaluation, `evaluation.seed`. The seed of a block depends on it and on the block's number
            only.

    Returns:
        The blocks in the order of the images; empty if `images` is 0.
    """
    starts = range(0, images, size)
    return [
        Block(i, start, min(start + size, images), derived_seed(seed, "block", i) % 2**31)
        for i, start in enumerate(starts)
    ]


def shard(all_blocks: list[Block], number: int, of: int) -> list[Block]:
    """Returns the blocks of test images that one of several jobs attacks.

    Args:
        all_blocks: all blocks of the test images, as `blocks` returns them. A block is a range of images that are
            attacked together as one batch.
        number: number of the job, from 1 to `of`.
        of: number of jobs that share the blocks.

    Returns:
        Every `of`-th block, beginning with the one at position `number - 1`: for job 2 of 3 the blocks 1, 4, 7, ...
        Empty if there are fewer blocks than `number`.
    """
    return all_blocks[number - 1 :: of]
