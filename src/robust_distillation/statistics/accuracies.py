"""Computes accuracies and other metrics, their means over seeds and their intervals from outcomes.

Outcomes are a table with one row per image and checkpoint of a trained model, and one boolean column per attack: see
`evaluation.outcomes`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import stats

from robust_distillation import metrics
from robust_distillation.columns import (
    CONFIDENCE,
    GROUP,
    METHOD,
    METRIC,
    NETWORK,
    SEED,
    STUDENT,
    TEACHER,
    TEACHER_ROW,
    confidence_of,
    prediction_of,
)
from robust_distillation.errors import UserError, unknown
from robust_distillation.evaluation.outcomes import attack_columns
from robust_distillation.metrics.contract import CLEAN, Predictions
from robust_distillation.statistics.intervals import half_width
from robust_distillation.statistics.measuring import Measured


@dataclass(frozen=True, eq=False)
class ModelOutcomes:
    """Outcomes of one model for each seed and test image: correct or not, clean and under each attack.

    A model is here a teacher, or a student network that one distillation method trained with one teacher, at one
    checkpoint. It has one network for each training seed. `statistics.accuracies.matrices` makes these objects from a
    table. In every array [S,N] row s belongs to `seeds[s]`, and the columns are the N test images in the order of their
    positions in the test split.

    Attributes:
        name: TEACHER/STUDENT/METHOD/CHECKPOINT, for messages, for example `wide/small/rslad/best`.
        seeds: the S training seeds, ascending.
        correct: `clean` and each attack to a bool array [S,N]. For `clean`, an entry is True if the network classifies
            the clean image correctly. For an attack, it is True if the network classifies both the clean and the
            adversarial image correctly.
        labels: int [N], the true classes.
        predicted: `clean` and each attack to the predicted classes [S,N] of the clean or adversarial images; without
            the attacks for which they were not stored.
        confidence: `clean` and each attack to the softmax probabilities of the predicted classes, [S,N]; without those
            that were not stored.
        teacher: int [N], the class that the teacher of the networks predicts for each clean image. None if they have no
            teacher or several, or if they are teachers.
    """

    name: str
    seeds: list[int]
    correct: dict[str, np.ndarray]
    labels: np.ndarray
    predicted: dict[str, np.ndarray] = field(default_factory=dict)
    confidence: dict[str, np.ndarray] = field(default_factory=dict)
    teacher: np.ndarray | None = None
    _measured: dict[str, Measured | None] = field(default_factory=dict)

    def measured(self, metric: str) -> Measured | None:
        """Measures a metric on the networks of this model. A second call returns the same object.

        Args:
            metric: name of the metric: `clean`, an attack, or METRIC.ATTACK, such as `worst_class.autoattack`.

        Returns:
            The values of the metric: `values` [S], one per network, and the values per image or on resampled images,
            from which intervals are computed. None if the metric is not defined for one of the networks, or if it
            compares with a teacher and the networks do not have exactly one.

        Raises:
            UserError: if the metric is unknown, or if the outcomes lack what it needs.
        """
        if metric not in self._measured:
            known = metrics.get(metric)
            if known.attack not in self.correct:
                raise UserError(f"outcomes of {self.name}: {unknown('attack', known.attack, self.correct)}")
            if "teacher" in known.needs and self.teacher is None:
                self._measured[metric] = None
                return None
            try:
                self._measured[metric] = Measured.of(known, self._predictions(known.attack))
            except UserError as error:
                raise UserError(f"outcomes of {self.name}: {error}") from error
        return self._measured[metric]

    def _predictions(self, attack: str) -> Predictions:
        return Predictions(
            self.labels, self.correct[CLEAN], self.correct[attack], self.predicted.get(attack),
            self.confidence.get(attack), self.teacher,
        )  # fmt: skip


def matrices(outcomes: pd.DataFrame) -> Iterator[tuple[tuple[str, ...], ModelOutcomes]]:
    """Arranges outcomes as arrays of seeds x images for each model.

    Args:
        outcomes: one row per test image of each trained network, with the columns `teacher`, `student`, `method`,
            `seed`, `checkpoint`, `index` (position in the test split), `label`, `prediction` (class of the clean
            image), and one bool column per attack (True if the clean and the adversarial image are both classified
            correctly). `evaluation.outcomes.read_outcomes` returns such a table, with further columns, which older
            outcomes lack. A student's teacher is found among the rows about teachers.

    Yields:
        Pairs of a key (teacher, student, method, checkpoint), such as ("wide", "small", "rslad", "best"), and the
        `ModelOutcomes` of this model: `seeds` (S of them, ascending), `labels` int [N], and `correct`, which maps
        `clean` and each attack to a bool array [S,N]. The keys come in the order of their first rows in `outcomes`.

    Raises:
        UserError: if the seeds of a model, or a student and its teacher, were not attacked on the same images. It is
            raised when the iteration reaches that model.
    """
    attacks, teachers = attack_columns(outcomes), _teachers(outcomes)
    predicted = {CLEAN: "prediction", **{name: prediction_of(name) for name in attacks}}
    confidence = {CLEAN: CONFIDENCE, **{name: confidence_of(name) for name in attacks}}
    for keys, rows in outcomes.groupby(GROUP, sort=False):
        ordered = rows.sort_values([SEED, "index"])
        seeds = ordered[SEED].unique().tolist()
        index = ordered["index"].to_numpy()
        if len(index) % len(seeds) or (index.reshape(len(seeds), -1) != index[: len(index) // len(seeds)]).any():
            raise UserError(f"outcomes of {'/'.join(keys)}: the seeds were not attacked on the same images")
        columns = {CLEAN: ordered["label"] == ordered["prediction"], **{name: ordered[name] for name in attacks}}
        names = dict(zip(GROUP, keys, strict=True))
        teacher = None if names[STUDENT] == TEACHER_ROW else teachers.get(names[TEACHER])
        if teacher is not None and not np.array_equal(teacher.index, index[: len(index) // len(seeds)]):
            raise UserError(f"outcomes of {'/'.join(keys)}: the teacher was not attacked on the same images")
        yield (
            keys,
            ModelOutcomes(
                name="/".join(keys),
                seeds=seeds,
                correct={name: column.to_numpy(dtype=bool).reshape(len(seeds), -1) for name, column in columns.items()},
                labels=ordered["label"].to_numpy()[: len(index) // len(seeds)],
                predicted=_stored(ordered, predicted, len(seeds)),
                confidence=_stored(ordered, confidence, len(seeds)),
                teacher=None if teacher is None else teacher.to_numpy(),
            ),
        )


def _teachers(outcomes: pd.DataFrame) -> dict[str, pd.Series]:
    """Returns the predictions of each teacher for the clean images, by the teacher's name and the images' index."""
    rows = outcomes[outcomes[STUDENT].eq(TEACHER_ROW)].drop_duplicates([TEACHER, "index"]).sort_values("index")
    return {name: own.set_index("index")["prediction"] for name, own in rows.groupby(TEACHER)}


def _stored(rows: pd.DataFrame, columns: dict[str, str], seeds: int) -> dict[str, np.ndarray]:
    """Returns the columns that `rows` has as arrays [S,N], by `clean` and attack."""
    return {name: rows[key].to_numpy().reshape(seeds, -1) for name, key in columns.items() if key in rows}


def accuracies(outcomes: pd.DataFrame, further: Iterable[str] = ()) -> pd.DataFrame:
    """Computes the accuracies of each network, and other metrics.

    Args:
        outcomes: one row per test image of each trained network, with the columns `teacher`, `student`, `method`,
            `seed`, `checkpoint`, `index` (position in the test split), `label`, `prediction` (class of the clean
            image), and one bool column per attack (True if the clean and the adversarial image are both classified
            correctly).
        further: names of the metrics to compute beside the accuracies, such as `worst_class.autoattack`.

    Returns:
        One row per teacher, student, method, seed, checkpoint and metric. Columns: these six, `n_images` (number of
        test images) and `value` (accuracy in percent, another metric in its unit). `metric` is `clean` or the name of
        an attack, or one of `further`. A metric of `further` that is not defined for one of a model's networks
        (`ModelOutcomes.measured` returns None) has no rows for this model.

    Raises:
        UserError: if the seeds of a model were not attacked on the same images, or if the outcomes lack what a metric
            needs.
    """
    rows = [
        {
            **dict(zip(GROUP, keys, strict=True)), SEED: seed, METRIC: metric, "n_images": found.images,
            "value": metrics.get(metric).scale * value,
        }
        for keys, metric, model, found in _measured(outcomes, further)
        for seed, value in zip(model.seeds, found.values, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=[*NETWORK, METRIC, "n_images", "value"])


def _measured(
    outcomes: pd.DataFrame, further: Iterable[str]
) -> Iterator[tuple[tuple[str, ...], str, ModelOutcomes, Measured]]:
    """Yields the key of each model, the name of each metric that is defined for it, the model and its values."""
    further = list(further)
    for keys, model in matrices(outcomes):
        for metric in (*model.correct, *further):
            if (found := model.measured(metric)) is not None:
                yield keys, metric, model, found


def class_accuracies(outcomes: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Computes the accuracy of each distillation method's students in each class, over the images of all seeds.

    Args:
        outcomes: one row per test image of each trained network, of one student architecture with one teacher at one
            checkpoint. It needs the columns `method`, `label`, `prediction` (class of the clean image), and the bool
            column `metric` if that is an attack (True if the clean and the adversarial image are both classified
            correctly).
        metric: `clean` or the name of an attack, such as `pgd20`.

    Returns:
        Accuracies in percent, with one row per method (index: its name, such as `rslad`) and one column per label (an
        int), both sorted. NaN if a method has no image of a class.
    """
    correct = outcomes["label"] == outcomes["prediction"] if metric == CLEAN else outcomes[metric]
    return 100 * correct.astype(float).groupby([outcomes[METHOD], outcomes["label"]]).mean().unstack()


def summary(outcomes: pd.DataFrame, further: Iterable[str] = ()) -> pd.DataFrame:
    """Computes the mean of accuracies and other metrics over the seeds, with standard deviation and 95 % interval.

    The interval treats seeds and test images as two crossed random samples: it covers the accuracy to be expected after
    training again with other seeds and testing on other images. With one seed it covers other images only. Its half
    length is that of `statistics.intervals.half_width` (the longest of the intervals by Student's t over the seeds, by
    Student's t with the variance components of seeds and images (Satterthwaite's degrees of freedom), and by the exact
    binomial bound). The interval of a metric that is no mean over images is lengthened on one side by the estimated
    bias, the mean over sets of resampled images minus the value on the test images
    (`statistics.measuring.Measured.bias`).

    Args:
        outcomes: one row per test image of each trained network, with the columns `teacher`, `student`, `method`,
            `seed`, `checkpoint`, `index` (position in the test split), `label`, `prediction` (class of the clean
            image), and one bool column per attack (True if the clean and the adversarial image are both classified
            correctly).
        further: names of the metrics to compute beside the accuracies, such as `worst_class.autoattack`.

    Returns:
        One row per teacher, student, method, checkpoint and metric (`clean`, an attack or one of `further`). Columns:
        these five, `n_images`, `n_seeds`, `mean`, `sd` (sample standard deviation of the seeds' values; NaN for one
        seed), `ci_low` and `ci_high` (the interval of the mean, cut at 0 and, for percentages, at 100). Accuracies are
        in percent, other metrics in their unit. A metric of `further` that is not defined for one of a model's networks
        (`ModelOutcomes.measured` returns None) has no row for this model.

    Raises:
        UserError: if the seeds of a model were not attacked on the same images, or if the outcomes lack what a metric
            needs.
    """
    rows = []
    for keys, metric, _, found in _measured(outcomes, further):
        known, squares = metrics.get(metric), found.squares()
        half, bias, highest = half_width(squares), found.bias(), 1 if known.unit == "percent" else math.inf
        rows.append({
            **dict(zip(GROUP, keys, strict=True)), METRIC: metric, "n_images": found.images, "n_seeds": squares.seeds,
            "mean": known.scale * squares.mean,
            "sd": known.scale * found.values.std(ddof=1) if squares.seeds > 1 else math.nan,
            "ci_low": known.scale * max(squares.mean - half - max(bias, 0), 0),
            "ci_high": known.scale * min(squares.mean + half - min(bias, 0), highest),
        })  # fmt: skip
    return pd.DataFrame(rows)


def spread(values: pd.Series) -> dict[str, float]:
    """Computes the mean of one number per seed, with its standard deviation and 95 % interval by Student's t.

    The interval is mean +- t * sd / sqrt(n), where t is the quantile of Student's t with n - 1 degrees of freedom for n
    values.

    Args:
        values: one number per seed, in any unit.

    Returns:
        A dict with `n_seeds` (number of values), `mean`, `sd` (sample standard deviation), `ci_low` and `ci_high` (the
        interval of the mean), in the unit of the values. `sd`, `ci_low` and `ci_high` are NaN for one seed.
    """
    n, mean = len(values), values.mean()
    sd = values.std(ddof=1) if n > 1 else math.nan
    half = stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n) if n > 1 else math.nan
    return {"n_seeds": n, "mean": mean, "sd": sd, "ci_low": mean - half, "ci_high": mean + half}
