"""Methods against each other on the same images and seeds, corrected for how many comparisons are made.

One correction everywhere, Bonferroni's: the interval of a comparison is at level 1 - 0.05 / m and its p value times m,
where m comparisons belong together. So a simultaneous interval leaves zero out exactly where the adjusted p is below
0.05, and all m intervals of a family hold at once with 95 %.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from robust_distillation.columns import CHECKPOINT, METHOD, METRIC, STUDENT, TEACHER
from robust_distillation.comparison import Comparison
from robust_distillation.statistics.accuracies import Correct, matrices
from robust_distillation.statistics.intervals import ALPHA, MeanSquares, half_width, mean_squares, p_value

COLUMNS = [
    TEACHER, STUDENT, CHECKPOINT, METRIC, METHOD, "other",
    "n_seeds", "n_images", "difference", "ci_low", "ci_high", "p", "p_adjusted", "comparisons",
]  # fmt: skip


class Outcomes(NamedTuple):
    """All outcomes, by teacher, student, method and checkpoint."""

    correct: Mapping[tuple[str, ...], Correct]

    @classmethod
    def of(cls, outcomes: pd.DataFrame) -> Outcomes:
        """Returns the outcomes of a frame: see `outcomes`."""
        return cls(dict(matrices(outcomes)))

    def find(self, comparison: Comparison, method: str, checkpoint: str) -> Correct | None:
        """Returns a method's outcomes, or None if it has no run in the comparison.

        Args:
            comparison: the students.
            method: its name.
            checkpoint: `best` or `last`.
        """
        keys = ((teacher, comparison.student, method, checkpoint) for teacher in comparison.teachers)
        return next((self.correct[key] for key in keys if key in self.correct), None)


def paired(first: Correct, second: Correct, metric: str) -> np.ndarray | None:
    """Returns first less second, [S,N] of -1, 0 and 1, for the S seeds that both have; None if they share no seed.

    Args:
        first: outcomes of one method.
        second: outcomes of the other on the same images.
        metric: `clean` or an attack.
    """
    seeds = [seed for seed in first.seeds if seed in second.seeds]
    if not seeds:
        return None
    a, b = (one.values[metric][[one.seeds.index(seed) for seed in seeds]] for one in (first, second))
    return a.astype(np.int8) - b.astype(np.int8)


def comparisons(
    outcomes: Outcomes, compared: Iterable[Comparison], methods: list[str], checkpoints: list[str], metrics: list[str]
) -> pd.DataFrame:
    """Returns the differences between every two methods that share a seed, in points: a row of COLUMNS each.

    A row is the later of `methods` less the earlier. The rows of one comparison, checkpoint and metric are a family.

    Args:
        outcomes: those of all models.
        compared: within each of these, methods are compared with one another.
        methods: in the order of the experiment.
        checkpoints: those to compare at.
        metrics: those to compare in.
    """
    rows = []
    for comparison in compared:
        for checkpoint in checkpoints:
            correct = {method: outcomes.find(comparison, method, checkpoint) for method in methods}
            present = [method for method in methods if correct[method]]
            for metric in metrics:
                squares = {
                    (method, other): mean_squares(differences)
                    for other, method in combinations(present, 2)
                    if (differences := paired(correct[method], correct[other], metric)) is not None
                }
                named = {**comparison._asdict(), CHECKPOINT: checkpoint, METRIC: metric}
                rows += [
                    {**named, METHOD: method, "other": other, **difference(found, len(squares))}
                    for (method, other), found in squares.items()
                ]
    return pd.DataFrame(rows, columns=COLUMNS)


def difference(found: MeanSquares, family: int) -> dict[str, float]:
    """Returns the columns of one difference in a family of `family`; differences are in points."""
    half, p = half_width(found, ALPHA / family), float(p_value(found))
    return {
        "n_seeds": found.seeds,
        "n_images": found.images,
        "difference": 100 * found.mean,
        "ci_low": 100 * max(found.mean - half, -1),
        "ci_high": 100 * min(found.mean + half, 1),
        "p": p,
        "p_adjusted": min(1.0, family * p),
        "comparisons": family,
    }
