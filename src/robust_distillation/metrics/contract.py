"""Predictions, and the type of the metrics that are computed from them.

A metric is a function of the predictions of S networks, one per training seed, on the same N images. It is a mean over
images, or any other function of weighted images. The weights say how often an image counts: resampled images, from
which intervals come, are images with other weights.
"""

from __future__ import annotations

from functools import cached_property
from types import ModuleType
from typing import NamedTuple

import numpy as np

from robust_distillation.errors import UserError, unknown

CLEAN = "clean"  # in place of an attack: the images without one
UNITS = {"percent": 100, "fraction": 1}  # unit in tables: its factor to the values that a metric returns


class Predictions(NamedTuple):
    """Predictions of S networks on the same N test images, clean or under one attack.

    The networks are the students of one teacher, architecture and distillation method, one for each training seed, or a
    single teacher.

    Attributes:
        labels: int [N], the true classes.
        clean_correct: bool [S,N], whether the clean image is classified correctly.
        correct: bool [S,N]: for clean images equal to `clean_correct`, else whether the image is classified correctly
            both clean and attacked.
        predicted: int [S,N], the predicted class of the image, clean or attacked. None if it was not stored.
        confidence: float [S,N] in [0,1], the softmax probability of the predicted class. None if it was not stored.
        teacher: int [N], the class that the teacher of the students predicts for the clean image. None if they have no
            teacher or several, or if the network is a teacher.
    """

    labels: np.ndarray
    clean_correct: np.ndarray
    correct: np.ndarray
    predicted: np.ndarray | None = None
    confidence: np.ndarray | None = None
    teacher: np.ndarray | None = None


class Metric:
    """A metric on clean images or under one attack, such as the accuracy or the worst-class accuracy.

    It is a function of the predictions of networks on test images. `metrics.get("worst_class.autoattack")` makes it.

    Attributes:
        name: name in tables: `clean` or the name of an attack for the accuracy, else METRIC.ATTACK, such as
            `worst_class.clean`.
        kind: METRIC, such as `worst_class`; "" for the accuracy.
        attack: `clean`, or the name of an attack, such as `autoattack`.
    """

    def __init__(self, name: str, kind: str, attack: str, module: ModuleType):
        """Creates a metric. Callers use `metrics.get`.

        Args:
            name: name in tables, such as `worst_class.clean`.
            kind: name of the metric without the attack, such as `worst_class`; "" for the accuracy.
            attack: `clean` or the name of an attack.
            module: the Python module that defines the metric: a function `per_image` or `measure`, and optional
                constants such as UNIT; the package `metrics` describes them.

        Raises:
            UserError: if the module does not define exactly one of `per_image` and `measure`, or if one of its
                constants is not allowed.
        """
        self.name, self.kind, self.attack, self._module = name, kind, attack, module
        functions = [key for key in ("per_image", "measure") if callable(getattr(module, key, None))]
        if len(functions) != 1:
            found = " and ".join(functions) or "neither"
            raise UserError(f"metric {kind!r}: {module.__file__} must define per_image or measure, found {found}")
        if self.unit not in UNITS:
            raise UserError(f"metric {kind!r}: {module.__file__}: {unknown('UNIT', self.unit, UNITS)}")
        if wrong := [need for need in self.needs if need not in OPTIONAL]:
            raise UserError(f"metric {kind!r}: {module.__file__}: {unknown('part in NEEDS', wrong[0], OPTIONAL)}")

    @property
    def title(self) -> str:
        """The heading in tables, without the attack, such as `Worst class`."""
        return getattr(self._module, "TITLE", self.kind)

    @property
    def meaning(self) -> str:
        """One sentence on what the metric is, without a full stop: the first paragraph of the module's docstring."""
        return " ".join((self._module.__doc__ or self.title).split("\n\n")[0].split()).rstrip(".")

    @property
    def unit(self) -> str:
        """The unit in tables: `percent` or `fraction`."""
        return getattr(self._module, "UNIT", "percent")

    @property
    def scale(self) -> int:
        """The factor from the values of `measure` to those in tables: 100 for `percent`, 1 for `fraction`."""
        return UNITS[self.unit]

    @property
    def higher_is_better(self) -> bool:
        """True if a higher value is better, as for accuracies; False as for calibration errors."""
        return getattr(self._module, "HIGHER_IS_BETTER", True)

    @property
    def needs(self) -> tuple[str, ...]:
        """The optional fields of `Predictions` that it reads: some of `predicted`, `confidence`, `teacher`."""
        return tuple(getattr(self._module, "NEEDS", ()))

    @cached_property
    def is_mean(self) -> bool:
        """True if the metric is a mean of one value per image; then `per_image` returns the values."""
        return hasattr(self._module, "per_image")

    def per_image(self, predictions: Predictions) -> np.ndarray:
        """Computes the values whose mean over the images is the metric. Call it only if `is_mean` is True.

        Args:
            predictions: the predictions of S networks, one for each training seed, on the same N images, as a
                Predictions.

        Returns:
            [S,N], values in [0,1].

        Raises:
            UserError: if a field of `predictions` that the metric needs is None or has NaN in it.
        """
        self._check(predictions)
        return self._module.per_image(predictions)

    def measure(self, predictions: Predictions, weights: np.ndarray | None = None) -> np.ndarray:
        """Computes the metric of each network.

        Args:
            predictions: the predictions of S networks, one for each training seed, on the same N images, as a
                Predictions.
            weights: how often each image counts in each of R sets of images, such as resampled ones, float or int
                [R,N], at least 0. None: each image counts once.

        Returns:
            One value per network, [S], if `weights` is None; else one per set and network, [R,S]. A percentage is a
            fraction here: 0.5 for 50 %. NaN where the metric is not defined.

        Raises:
            UserError: if a field of `predictions` that the metric needs is None or has NaN in it.
        """
        if weights is None:
            return self.measure(predictions, np.ones((1, len(predictions.labels))))[0]
        if self.is_mean:
            return weights @ self.per_image(predictions).T / weights.sum(-1, keepdims=True)
        self._check(predictions)
        return self._module.measure(predictions, weights)

    def support(self, predictions: Predictions) -> int:
        """Returns the smallest number of images on which a value of the metric can rest.

        For the worst-class accuracy it is the number of images of the smallest class. By default it is N, the number of
        all images.

        Args:
            predictions: the predictions of S networks, one for each training seed, on the same N images, as a
                Predictions.
        """
        own = getattr(self._module, "support", None)
        return own(predictions) if own else len(predictions.labels)

    def _check(self, predictions: Predictions) -> None:
        for need in self.needs:
            values = getattr(predictions, need)
            if values is None or np.isnan(values).any():
                raise UserError(f"{self.name} needs {OPTIONAL[need]}, which the outcomes lack: attack again")


OPTIONAL = {
    "predicted": "the predicted class of each image",
    "confidence": "the confidence of each prediction",
    "teacher": "the teacher's predicted classes",
}  # fields of Predictions that may be None, for messages


def class_accuracies(predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    """Computes the accuracy of each network in each class.

    Args:
        predictions: the predictions of S networks, one for each training seed, on the same N images. `labels`, int [N],
            and `correct`, bool [S,N], are used: with an attack, whether the clean and the attacked image are both
            classified correctly.
        weights: how often each image counts in each of R sets of images, such as resampled ones, float or int [R,N], at
            least 0.

    Returns:
        Accuracies in [0,1], [R,S,K], for each set, network and class. K is the number of classes that have an image in
        `predictions.labels`; they are in ascending order. NaN where every image of the class has weight 0.
    """
    sums = []
    for label in np.unique(predictions.labels):
        own = predictions.labels == label
        counts = weights[:, own]
        total = counts.sum(-1, keepdims=True)
        sums.append(counts @ predictions.correct[:, own].T / np.where(total > 0, total, np.nan))
    return np.stack(sums, axis=-1)
