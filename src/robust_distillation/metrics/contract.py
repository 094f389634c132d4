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
    """Predictions of one model on N test images, clean or under one attack, by its S networks.

    Attributes:
        labels: int [N], the true classes.
        clean_correct: bool [S,N], whether the clean image is classified correctly.
        correct: bool [S,N]: for clean images equal to `clean_correct`, else whether the image is classified correctly
            both clean and attacked.
        predicted: int [S,N], the predicted class of the image, clean or attacked. None if it was not stored.
        confidence: float [S,N] in [0,1], the softmax probability of the predicted class. None if it was not stored.
        teacher: int [N], the class that the teacher of the networks predicts for the clean image. None if they have no
            teacher or several, or if the networks are teachers.
    """

    labels: np.ndarray
    clean_correct: np.ndarray
    correct: np.ndarray
    predicted: np.ndarray | None = None
    confidence: np.ndarray | None = None
    teacher: np.ndarray | None = None


class Metric:
    """A metric on clean images or under one attack.

    Attributes:
        name: name in tables: `clean` or an attack for the accuracy, else METRIC.ATTACK, such as `worst_class.clean`.
        kind: METRIC, or "" for the accuracy.
        attack: `clean` or the name of an attack.
    """

    def __init__(self, name: str, kind: str, attack: str, module: ModuleType):
        """Names a metric.

        Args:
            name: name in tables.
            kind: name of the metric without the attack; "" for the accuracy.
            attack: `clean` or the name of an attack.
            module: the module that defines it.

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
        """The heading in tables, without the attack."""
        return getattr(self._module, "TITLE", self.kind)

    @property
    def meaning(self) -> str:
        """The first sentence of the module's docstring, without its full stop."""
        return " ".join((self._module.__doc__ or self.title).split("\n\n")[0].split()).rstrip(".")

    @property
    def unit(self) -> str:
        """The unit in tables: `percent` or `fraction`."""
        return getattr(self._module, "UNIT", "percent")

    @property
    def scale(self) -> int:
        """The factor from the values of the metric to their unit in tables."""
        return UNITS[self.unit]

    @property
    def higher_is_better(self) -> bool:
        """True if a higher value is better."""
        return getattr(self._module, "HIGHER_IS_BETTER", True)

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the fields of `Predictions` that may be None and that the metric needs."""
        return tuple(getattr(self._module, "NEEDS", ()))

    @cached_property
    def is_mean(self) -> bool:
        """True if the metric is a mean over images."""
        return hasattr(self._module, "per_image")

    def per_image(self, predictions: Predictions) -> np.ndarray:
        """Computes the values whose mean over the images is the metric; only for a metric that is such a mean.

        Args:
            predictions: those of S networks on N images.

        Returns:
            [S,N], values in [0,1].

        Raises:
            UserError: if a part that the metric needs is missing or has NaN in it.
        """
        self._check(predictions)
        return self._module.per_image(predictions)

    def measure(self, predictions: Predictions, weights: np.ndarray | None = None) -> np.ndarray:
        """Computes the metric of each network.

        Args:
            predictions: those of S networks on N images.
            weights: [R,N], how often each image counts, for R sets of images. None: each image once.

        Returns:
            One value per network, [S], or per set and network, [R,S]. A percentage is a fraction here: 0.5 for 50 %.
            NaN if the metric is not defined.

        Raises:
            UserError: if a part that the metric needs is missing or has NaN in it.
        """
        if weights is None:
            return self.measure(predictions, np.ones((1, len(predictions.labels))))[0]
        if self.is_mean:
            return weights @ self.per_image(predictions).T / weights.sum(-1, keepdims=True)
        self._check(predictions)
        return self._module.measure(predictions, weights)

    def support(self, predictions: Predictions) -> int:
        """Returns the smallest number of images that a value of the metric can rest on: all N images by default.

        Args:
            predictions: those of S networks on N images.
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
    """Computes the accuracy in each class.

    Args:
        predictions: those of S networks on N images.
        weights: [R,N], how often each image counts, for R sets of images.

    Returns:
        Accuracies in [0,1] for each set, network and class with an image, [R,S,K]. NaN where every image of the class
        has weight 0.
    """
    sums = []
    for label in np.unique(predictions.labels):
        own = predictions.labels == label
        counts = weights[:, own]
        total = counts.sum(-1, keepdims=True)
        sums.append(counts @ predictions.correct[:, own].T / np.where(total > 0, total, np.nan))
    return np.stack(sums, axis=-1)
