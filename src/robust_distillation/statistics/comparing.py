"""Compares methods on the same images and seeds, corrected for the number of comparisons.

The correction is Bonferroni's: among m comparisons of one family, an interval has the level 1 - 0.05 / m, and a p value
is multiplied by m. So an interval does not contain zero if and only if the adjusted p value is below 0.05, and all m
intervals of a family cover together with a probability of at least 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import NamedTuple

import pandas as pd

from robust_distillation import metrics as registered
from robust_distillation.columns import CHECKPOINT, METHOD, METRIC, STUDENT, TEACHER
from robust_distillation.comparison import Comparison
from robust_distillation.metrics.contract import Metric
from robust_distillation.statistics.accuracies import ModelOutcomes, matrices
from robust_distillation.statistics.intervals import ALPHA, half_width, p_value
from robust_distillation.statistics.measuring import Measured

COLUMNS = [
    TEACHER, STUDENT, CHECKPOINT, METRIC, METHOD, "other",
    "n_seeds", "n_images", "difference", "ci_low", "ci_high", "p", "p_adjusted", "comparisons",
]  # fmt: skip


class Outcomes(NamedTuple):
    """Outcomes of all models of an experiment, by model.

    Attributes:
        models: (teacher, student, method, checkpoint), such as ("wide", "small", "rslad", "best"), to the outcomes of
            that model. The teacher is `none` for a method that needs no teacher. In the entry of a teacher the student
            is `-`.
    """

    models: Mapping[tuple[str, ...], ModelOutcomes]

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

    def find(self, comparison: Comparison, method: str, checkpoint: str) -> ModelOutcomes | None:
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
        return next((self.models[key] for key in keys if key in self.models), None)


def paired(first: ModelOutcomes, second: ModelOutcomes, metric: str) -> Measured | None:
    """Computes the differences of two methods in a metric, on the same seeds and images.

    Args:
        first: outcomes of the first method's students, as `Outcomes.find` returns them.
        second: outcomes of the second method's students, on the same images.
        metric: `clean`, the name of an attack, or METRIC.ATTACK. Both methods must have it.

    Returns:
        First minus second, for the seeds that both have, in the order of `first.seeds`. None if the methods share no
        seed, or if the metric is not defined for one of them.
    """
    seeds = [seed for seed in first.seeds if seed in second.seeds]
    if not seeds or (one := first.measured(metric)) is None or (other := second.measured(metric)) is None:
        return None
    return one.minus(other, [first.seeds.index(seed) for seed in seeds], [second.seeds.index(seed) for seed in seeds])


def comparisons(
    outcomes: Outcomes, compared: Iterable[Comparison], methods: list[str], checkpoints: list[str], metrics: list[str]
) -> pd.DataFrame:
    """Compares every two methods, for each student architecture with its teacher, checkpoint and metric.

    The difference of two methods is taken on the same seeds and images. Its interval and p value (see `difference`)
    account for training again with other seeds and for testing on other images. All pairs of methods with the same
    student, teacher, checkpoint and metric form a family. Intervals and p values are corrected for the number of pairs
    in the family (Bonferroni). Methods without outcomes, pairs that share no seed, and pairs in which the metric is
    not defined are left out and do not count.

    Args:
        outcomes: the outcomes of all models, `Outcomes.of(table)`.
        compared: pairs of a teacher and a student architecture, such as `Comparison("wide", "small")`;
            `experiment.comparisons` lists them. A method that needs no teacher takes part in every comparison of its
            student.
        methods: names of the methods, such as ["sat", "rslad"]. Each difference is the later of two methods in this
            list minus the earlier.
        checkpoints: any of `best` and `last`.
        metrics: any of `clean`, the names of attacks, and METRIC.ATTACK for other metrics.

    Returns:
        One row per pair of methods, with the columns `teacher`, `student`, `checkpoint`, `metric`, `method` (the later
        one), `other` (the earlier one), `n_seeds` (seeds that both have), `n_images`, `difference` (mean of `method`
        minus `other`, in percentage points or in the unit of the metric), `ci_low`, `ci_high` (its simultaneous 95 %
        interval, in the same unit), `p`, `p_adjusted` (p times the size of the family, at most 1) and `comparisons`
        (the size of the family).
    """
    rows = []
    for comparison in compared:
        for checkpoint in checkpoints:
            models = {method: outcomes.find(comparison, method, checkpoint) for method in methods}
            present = [method for method in methods if models[method]]
            for metric in metrics:
                differences = {
                    (method, other): found
                    for other, method in combinations(present, 2)
                    if (found := paired(models[method], models[other], metric)) is not None
                }
                named = {**comparison._asdict(), CHECKPOINT: checkpoint, METRIC: metric}
                rows += [
                    {
                        **named, METHOD: method, "other": other,
                        **difference(found, registered.get(metric), len(differences)),
                    }
                    for (method, other), found in differences.items()
                ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def difference(found: Measured, metric: Metric, family: int) -> dict[str, float]:
    """Computes the numbers of one comparison of two methods: the mean difference, its confidence interval and its p
    values.

    The interval is the mean +- `half_width` at the level 1 - 0.05 / family, and p is the two-sided p value of a
    difference of 0.

    Args:
        found: the differences between the two methods, as `paired` returns them.
        metric: the metric in which they differ.
        family: number of comparisons that are corrected together (Bonferroni).

    Returns:
        A dict with `n_seeds`, `n_images`, `difference` (the mean), `ci_low`, `ci_high` (all three in percentage points,
        and the interval cut at -100 and 100, or in the unit of a metric that is no percentage), `p`, `p_adjusted`
        (family x p, at most 1) and `comparisons` (equal to `family`).
    """
    squares = found.squares()
    half, p = half_width(squares, ALPHA / family), float(p_value(squares))
    largest = 1 if metric.unit == "percent" else math.inf
    return {
        "n_seeds": squares.seeds,
        "n_images": found.images,
        "difference": metric.scale * squares.mean,
        "ci_low": metric.scale * max(squares.mean - half, -largest),
        "ci_high": metric.scale * min(squares.mean + half, largest),
        "p": p,
        "p_adjusted": min(1.0, family * p),
        "comparisons": family,
    }
