"""The lowest accuracy of a class (worst-class accuracy).

Classes without a test image do not count. The lowest of several measured accuracies tends to lie below the lowest of
the true ones, the more so the fewer images a class has: see docs/statistics.md.
"""

from __future__ import annotations

import numpy as np

from robust_distillation.metrics.contract import Predictions, class_accuracies

TITLE = "Worst class"


def measure(predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    """Computes the lowest accuracy of a class.

    Args:
        predictions: those of S networks on N images.
        weights: [R,N], how often each image counts, for R sets of images.

    Returns:
        The lowest accuracy in [0,1] for each set and network, [R,S].
    """
    return np.nanmin(class_accuracies(predictions, weights), axis=-1)


def support(predictions: Predictions) -> int:
    """Returns the number of images of the smallest class.

    Args:
        predictions: those of S networks on N images.
    """
    return int(np.unique(predictions.labels, return_counts=True)[1].min())
