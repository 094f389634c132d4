"""Compares methods on the same images and seeds, corrected for the number of comparisons.

The correction is Bonferroni's: among m comparisons of one family, an interval has the level 1 - 0.05 / m, and a p value
is multiplied by m. So an interval does not contain zero if and only if the adjusted p value is below 0.05, and all m
intervals of a family cover together with a probability of at least 95 %.
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
    """The outcomes of all models of an experiment, as matrices of seeds and images.

    Attributes:
        correct: (teacher, student, method, checkpoint) to its matrices. The teacher is `none` for a method without one.
    """

    correct: Mapping[tuple[str, ...], Correct]

    @classmethod
    def of(cls, outcomes: pd.DataFrame) -> Outcomes:
        """Makes the matrices from a table of outcomes, see `evaluation.outcomes`."""
        return cls(dict(matrices(outcomes)))

    def find(self, comparison: Comparison, method: str, checkpoint: str) -> Correct | None:
        """Looks up the outcomes of a student for the comparison of methods.

        Args:
            comparison: the student and the teacher.
            method: name of the method.
            checkpoint: `best` or `last`.

        Returns:
            The outcomes of the student that `method` distilled from this teacher; if there is none, of the student that
            `method` trained without a teacher; else None.
        """
        keys = ((teacher, comparison.student, method, checkpoint) for teacher in comparison.teachers)
        return next((self.correct[key] for key in keys if key in self.correct), None)


def paired(first: Correct, second: Correct, metric: str) -> np.ndarray | None:
    """Computes the differences of two methods' outcomes on the same seeds and images.

    Args:
        first: outcomes of the first method.
        second: outcomes of the second method on the same images.
        metric: `clean` or the name of an attack.

    Returns:
        First minus second, int8 [S,N] of -1, 0 and 1, for the S seeds that both have. None if they share no seed.
    """
    seeds = [seed for seed in first.seeds if seed in second.seeds]
    if not seeds:
        return None
    a, b = (one.values[metric][[one.seeds.index(seed) for seed in seeds]] for one in (first, second))
    return a.astype(np.int8) - b.astype(np.int8)


def comparisons(
    outcomes: Outcomes, compared: Iterable[Comparison], methods: list[str], checkpoints: list[str], metrics: list[str]
) -> pd.DataFrame:
    """Compares every two methods for each student and teacher, checkpoint and metric.

    The rows of one student and teacher, checkpoint and metric form a family, within which intervals and p values are
    corrected.

    Args:
        outcomes: the outcomes of all models.
        compared: the students and teachers.
        methods: the methods. Of two, the difference is the later minus the earlier.
        checkpoints: `best`, `last`.
        metrics: `clean` and names of attacks.

    Returns:
        One row per two methods that share a seed, with the columns COLUMNS: the difference of `method` minus `other`
        and its simultaneous 95 % interval in percentage points, the p value and the adjusted p value, and the size of
        the family (`comparisons`).
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
    """Computes the columns of one comparison.

    Args:
        found: mean squares of the differences of the two methods' outcomes.
        family: number of comparisons that are corrected together.

    Returns:
        `n_seeds`, `n_images`, `difference`, `ci_low` and `ci_high` (percentage points), `p`, `p_adjusted` and
        `comparisons` (the family's size).
    """
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
