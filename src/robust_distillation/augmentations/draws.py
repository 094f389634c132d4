"""Random numbers that are a pure function of seed, epoch, position of the image and number of the draw.

They come from a hash of these four (a counter-based generator), not from a state. So an image has the same numbers in
every batch and process, and millions of images need no generator each. The hash is the output function of SplitMix64
(Steele, Lea and Flood, 2014), applied once for each of epoch, position and draw.
"""

from __future__ import annotations

import numpy as np

from robust_distillation.randomness import derived_seed

STEP = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio, odd: the step of SplitMix64


class Draws:
    """Random numbers for a batch of B images: each call of a method returns one new number for each row.

    A number depends only on the seed, the epoch, the position of the row's image in the training split, and how many
    calls were made before. So an image gets the same numbers in every batch. Numbers are drawn on the CPU as NumPy
    arrays.
    """

    def __init__(self, seed: int, epochs: np.ndarray, ids: np.ndarray):
        """Prepares the numbers of a batch.

        Args:
            seed: seed of the training.
            epochs: int64 [B], the number of the epoch of each row, counted from 1.
            ids: int64 [B], the position of each row's image in the training split.
        """
        start = np.uint64(derived_seed(seed, "augmentation"))
        self._rows = _hashed(_hashed(start + STEP * epochs.astype(np.uint64)) + STEP * ids.astype(np.uint64))
        self._count = 0

    def uniform(self, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """Draws numbers float64 [B] from the uniform distribution on [low, high).

        Args:
            low: least number.
            high: upper bound, above `low`.
        """
        self._count += 1
        bits = _hashed(
            self._rows + STEP * np.full(1, self._count, np.uint64)
        )  # numpy warns of single numbers that overflow
        return low + (high - low) * ((bits >> np.uint64(11)) * 2.0**-53)

    def integers(self, low: int | np.ndarray, high: int | np.ndarray) -> np.ndarray:
        """Draws integers from `low` to `high` - 1, all equally likely, int64 [B].

        Args:
            low: the least integer, one number for all rows or an int64 array [B].
            high: one more than the greatest integer, one number for all rows or an int64 array [B]; above `low`.
        """
        found = low + np.floor(self.uniform() * (high - low)).astype(np.int64)
        return np.minimum(found, high - 1)  # the product may have been rounded up

    def coin(self, probability: float = 0.5) -> np.ndarray:
        """Draws booleans [B] that are True with `probability`, a number in [0, 1]."""
        return self.uniform() < probability


def _hashed(state: np.ndarray) -> np.ndarray:
    """Applies SplitMix64's output function, a bijection of 64-bit integers; sums and products are modulo 2^64."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
