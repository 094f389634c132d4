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
        models: key (teacher, student, method, checkpoint), such as ("wide", "small", "rslad", "best"), to a
            `ModelOutcomes`: `seeds`, `labels` int [N], and `correct`, which maps `clean` and each attack to a bool
            array [S,N]. The teacher is `none` for a method that needs no teacher. In the entry of a teacher the student
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
            The outcomes, whose `models` has one entry per teacher, student, method and checkpoint in the table.

        Raises:
            UserError: if the seeds of a model were not attacked on the same images.
        """
        return cls(dict(matrices(outcomes)))

    def find(self, comparison: Comparison, method: str, checkpoint: str) -> ModelOutcomes | None:
        """Finds the outcomes of the students that one distillation method trained for a pair of teacher and student
        architecture.

        Args:
            comparison: one pair of a teacher and a student architecture, for example `Comparison("wide", "small")`.
            method: name of the distillation method, such as `rslad`.
            checkpoint: `best` or `last`.

        Returns:
            A `ModelOutcomes` of the students that `method` distilled from the teacher of `comparison`. If there are
            none, that of the students that `method` trained without a teacher. If there are none either, None.
        """
        keys = ((teacher, comparison.student, method, checkpoint) for teacher in comparison.teachers)
        return next((self.models[key] for key in keys if key in self.models), None)


def paired(first: ModelOutcomes, second: ModelOutcomes, metric: str) -> Measured | None:
    """Computes the differences of two distillation methods in a metric, on the same seeds and images.

    Args:
        first: outcomes of the first method's students, a `ModelOutcomes` as `Outcomes.find` returns it.
        second: outcomes of the second method's students, on the same images in the same order.
        metric: `clean`, the name of an attack, or METRIC.ATTACK, such as `worst_class.autoattack`. Both methods must
            have it.

    Returns:
        A `Measured` with first minus second: `values` [S] for the S seeds that both methods have, in the order of
        `first.seeds`, and the differences per image or on resampled images. None if the methods share no seed, or if
        the metric is not defined for one of them.
    """
    seeds = [seed for seed in first.seeds if seed in second.seeds]
    if not seeds or (one := first.measured(metric)) is None or (other := second.measured(metric)) is None:
        return None
    return one.minus(other, [first.seeds.index(seed) for seed in seeds], [second.seeds.index(seed) for seed in seeds])


def comparisons(
    outcomes: Outcomes, compared: Iterable[Comparison], methods: list[str], checkpoints: list[str], metrics: list[str]
) -> pd.DataFrame:
    """Compares every two distillation methods, for each pair of teacher and student architecture, checkpoint and
    metric.

    The difference of two methods is taken on the same seeds and images. Its interval is the longest of the intervals by
    Student's t over the seeds, by Student's t with the variance components of seeds and images (Satterthwaite's degrees
    of freedom), and by the exact binomial bound; the p value is the level at which this interval would end at 0.
    Interval and p value account for training again with other seeds and for testing on other images. All pairs of
    methods with the same student, teacher, checkpoint and metric form a family. Intervals and p values are corrected
    for the number of pairs in the family (Bonferroni). Methods without outcomes, pairs that share no seed, and pairs in
    which the metric is not defined are left out and do not count.

    Args:
        outcomes: the outcomes of all models, as `Outcomes.of(table)` returns them.
        compared: pairs of a teacher and a student architecture, such as `Comparison("wide", "small")`;
            `experiment.comparisons` lists them. A distillation method that needs no teacher takes part in every pair
            with its student.
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
    """Computes the mean difference of two distillation methods, with the confidence interval and the p values.

    The interval is mean +- `statistics.intervals.half_width` at the level 1 - 0.05 / family: the longest of the
    intervals by Student's t over the seeds, by Student's t with the variance components of seeds and images
    (Satterthwaite's degrees of freedom), and by the exact binomial bound. p is the two-sided p value of a difference of
    0 (`statistics.intervals.p_value`).

    Args:
        found: the differences between the two methods, a `Measured` as `statistics.comparing.paired` returns it.
        metric: the metric in which the methods differ, as `metrics.get("autoattack")` returns it. Its name and unit are
            used.
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
