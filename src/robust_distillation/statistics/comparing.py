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
    """Correctness of the predictions of all models of an experiment, by model. `Outcomes.of(table)` builds it.

    Attributes:
        correct: (teacher, student, method, checkpoint), such as ("wide", "small", "rslad", "best"), to the `Correct` of
            that model: its `seeds`, and `values`, which maps a metric such as `pgd20` to a bool array [seeds, images].
            The teacher is `none` for a method that needs no teacher. In the entry of a teacher the student is `-`.
    """

    correct: Mapping[tuple[str, ...], Correct]

    @classmethod
    def of(cls, outcomes: pd.DataFrame) -> Outcomes:
        """Builds the arrays of all models from a table of outcomes.

        Args:
            outcomes: one row per test image of each trained network, with the columns `teacher`, `student`, `method`,
                `seed`, `checkpoint`, `index` (position in the test split), `label`, `prediction` (class of the clean
                image), and one bool column per attack (True if the clean and the adversarial image are both classified
                correctly).

        Returns:
            One entry per teacher, student, method and checkpoint in the table.

        Raises:
            UserError: if the seeds of a model were not attacked on the same images.
        """
        return cls(dict(matrices(outcomes)))

    def find(self, comparison: Comparison, method: str, checkpoint: str) -> Correct | None:
        """Finds the outcomes of one method's students in a comparison of methods.

        Args:
            comparison: names of the student architecture and of the teacher with which methods are compared.
            method: name of the method, such as `rslad`.
            checkpoint: `best` or `last`.

        Returns:
            The outcomes of the students that `method` distilled from the comparison's teacher. If there are none, the
            outcomes of the students that `method` trained without a teacher. If there are none either, None.
        """
        keys = ((teacher, comparison.student, method, checkpoint) for teacher in comparison.teachers)
        return next((self.correct[key] for key in keys if key in self.correct), None)


def paired(first: Correct, second: Correct, metric: str) -> np.ndarray | None:
    """Computes the differences of the outcomes of two methods on the same seeds and images.

    Args:
        first: correctness of the first method's students: `seeds`, and `values` (metric to a bool array [seeds,
            images]), as `Outcomes.find` returns it.
        second: correctness of the second method's students, on the same images.
        metric: `clean` or the name of an attack, such as `pgd20`. Both arguments must have it.

    Returns:
        First minus second, int8 [S,N] of -1, 0 and 1. The rows are the S seeds that occur in both arguments, in the
        order of `first.seeds`; the columns are the N images. None if the methods share no seed.
    """
    seeds = [seed for seed in first.seeds if seed in second.seeds]
    if not seeds:
        return None
    a, b = (one.values[metric][[one.seeds.index(seed) for seed in seeds]] for one in (first, second))
    return a.astype(np.int8) - b.astype(np.int8)


def comparisons(
    outcomes: Outcomes, compared: Iterable[Comparison], methods: list[str], checkpoints: list[str], metrics: list[str]
) -> pd.DataFrame:
    """Compares every two methods, for each student architecture with its teacher, checkpoint and metric.

    The difference of two methods is taken on the same seeds and images. Its interval and p value (see `difference`)
    account for training again with other seeds and for testing on other images. All pairs of methods with the same
    student, teacher, checkpoint and metric form a family. Intervals and p values are corrected for the number of pairs
    in the family (Bonferroni). Methods without outcomes, and pairs that share no seed, are left out and do not count.

    Args:
        outcomes: the outcomes of all models, `Outcomes.of(table)`.
        compared: pairs of a teacher and a student architecture, such as `Comparison("wide", "small")`;
            `experiment.comparisons` lists them. A method that needs no teacher takes part in every comparison of its
            student.
        methods: names of the methods, such as ["sat", "rslad"]. Each difference is the later of two methods in this
            list minus the earlier.
        checkpoints: any of `best` and `last`.
        metrics: any of `clean` and the names of attacks, such as `pgd20`.

    Returns:
        One row per pair of methods, with the columns `teacher`, `student`, `checkpoint`, `metric`, `method` (the later
        one), `other` (the earlier one), `n_seeds` (seeds that both methods have), `n_images`, `difference` (mean of
        `method` minus `other`, in percentage points), `ci_low`, `ci_high` (its simultaneous 95 % interval, in
        percentage points), `p`, `p_adjusted` (p times the size of the family, at most 1) and `comparisons` (the size of
        the family).
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
    """Computes the numbers of one comparison of two methods: the mean difference, its confidence interval and its p
    values.

    The interval is the mean +- `half_width` at the level 1 - 0.05 / family, and p is the two-sided p value of a
    difference of 0.

    Args:
        found: mean squares of the paired differences [S,N] between the outcomes of the two methods,
            `mean_squares(paired(...))`.
        family: number of comparisons that are corrected together (Bonferroni).

    Returns:
        A dict with `n_seeds`, `n_images`, `difference` (the mean), `ci_low`, `ci_high` (all three in percentage points;
        the interval is cut at -100 and 100), `p`, `p_adjusted` (family x p, at most 1) and `comparisons` (equal to
        `family`).
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
