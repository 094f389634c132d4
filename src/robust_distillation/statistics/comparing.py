"""Compares methods on the same images and seeds, corrected for the number of comparisons.

The methods share what is known of the variance over seeds (`statistics.sharing`). Among m comparisons of one family an
interval has the level 1 - 0.05 / m (Bonferroni), so that all intervals cover together with a probability of at least
95 %. p values are adjusted by Holm's method, see `statistics.estimates`.
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
from robust_distillation.statistics.estimates import Estimate
from robust_distillation.statistics.intervals import ALPHA, holm
from robust_distillation.statistics.measuring import Measured
from robust_distillation.statistics.sharing import SharedSeeds

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

    def shared_seeds(self, comparison: Comparison, methods: Iterable[str], checkpoint: str, metric: str) -> SharedSeeds:
        """Shares the variances over seeds of the methods of one pair of teacher and student architecture.

        Args:
            comparison: one pair of a teacher and a student architecture, for example `Comparison("wide", "small")`.
            methods: names of the methods, such as ["sat", "rslad"]. One without outcomes, or for which the metric is
                not defined, takes no part.
            checkpoint: `best` or `last`.
            metric: `clean`, the name of an attack, or METRIC.ATTACK, such as `worst_class.autoattack`.
        """
        models = {method: self.find(comparison, method, checkpoint) for method in methods}
        measured = {method: model.measured(metric) for method, model in models.items() if model is not None}
        return SharedSeeds.of({method: found.values for method, found in measured.items() if found is not None})


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
    outcomes: Outcomes, compared: Iterable[Comparison], methods: list[str], checkpoints: list[str], metrics: list[str],
    references: Mapping[Comparison, str] = {},
) -> pd.DataFrame:  # fmt: skip
    """Compares distillation methods, for each pair of teacher and student architecture, checkpoint and metric: each
    with a reference, or every two.

    The difference of two methods is taken on the same seeds and images. Its interval is the longest of the intervals by
    Student's t over the seeds, by Student's t with the variance components of seeds and images (Satterthwaite's degrees
    of freedom), and by the exact binomial bound; the p value is the level at which this interval would end at 0. The
    variance over seeds is that of `statistics.sharing`, shared by all methods of the same student, teacher, checkpoint
    and metric. Interval and p value account for training again with other seeds and for testing on other images. All
    pairs of these methods form a family. Intervals are corrected for the number of pairs in the family by Bonferroni's
    method, p values by Holm's. Methods without outcomes, pairs that share no seed, and pairs in which the metric is not
    defined are left out and do not count.

    Args:
        outcomes: the outcomes of all models, as `Outcomes.of(table)` returns them.
        compared: pairs of a teacher and a student architecture, such as `Comparison("wide", "small")`;
            `experiment.comparisons` lists them. A distillation method that needs no teacher takes part in every pair
            with its student.
        methods: names of the methods, such as ["sat", "rslad"]. Each difference is the later of two methods in this
            list minus the earlier.
        checkpoints: any of `best` and `last`.
        metrics: any of `clean`, the names of attacks, and METRIC.ATTACK for other metrics.
        references: pair of teacher and student architecture to the name of the method that the others are compared to.
            Without an entry every two methods are compared.

    Returns:
        One row per pair of methods, with the columns `teacher`, `student`, `checkpoint`, `metric`, `method` (the later
        one of a pair), `other` (the reference, or the earlier one), `n_seeds` (seeds that both have), `n_images`,
        `difference` (mean of `method` minus `other`, in percentage points or in the unit of the metric), `ci_low`,
        `ci_high` (its simultaneous 95 % interval, in the same unit), `p`, `p_adjusted` (by Holm's method) and
        `comparisons` (the size of the family).
    """
    rows = []
    for comparison in compared:
        for checkpoint in checkpoints:
            models = {method: outcomes.find(comparison, method, checkpoint) for method in methods}
            present = [method for method in methods if models[method]]
            pairs = list(combinations(present, 2))
            if (reference := references.get(comparison)) in present:
                pairs = [(reference, method) for method in present if method != reference]
            for metric in metrics:
                differences = {
                    (method, other): found
                    for other, method in pairs
                    if (found := paired(models[method], models[other], metric)) is not None
                }
                shared = outcomes.shared_seeds(comparison, present, checkpoint, metric)
                estimates = [Estimate.of(found, shared, *pair) for pair, found in differences.items()]
                adjusted = holm([estimate.p_value() for estimate in estimates])
                named = {**comparison._asdict(), CHECKPOINT: checkpoint, METRIC: metric}
                rows += [
                    {
                        **named, METHOD: method, "other": other,
                        **_difference(estimate, registered.get(metric), p_adjusted, len(differences)),
                    }
                    for (method, other), estimate, p_adjusted in zip(differences, estimates, adjusted, strict=True)
                ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def _difference(estimate: Estimate, metric: Metric, p_adjusted: float, family: int) -> dict[str, float]:
    """Returns the columns of a row of `comparisons` about the difference, in points or in the unit of the metric."""
    largest = 1 if metric.unit == "percent" else math.inf
    low, high = estimate.interval(ALPHA / family, p_adjusted)
    return {
        "n_seeds": estimate.seeds,
        "n_images": estimate.images,
        "difference": metric.scale * estimate.mean,
        "ci_low": metric.scale * max(low, -largest),
        "ci_high": metric.scale * min(high, largest),
        "p": estimate.p_value(),
        "p_adjusted": float(p_adjusted),
        "comparisons": family,
    }
