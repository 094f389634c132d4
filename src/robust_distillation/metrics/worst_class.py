"""The lowest accuracy of a class (worst-class accuracy).

Classes without a test image do not count. The lowest of several measured accuracies tends to lie below the lowest of
the true ones, the more so the fewer images a class has: see docs/statistics.md.
"""

from __future__ import annotations

import numpy as np

from robust_distillation.metrics.contract import Predictions, class_accuracies

TITLE = "Worst class"


def measure(predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    """Computes the lowest accuracy of a class, for each network. Classes without an image are left out.

    Args:
        predictions: the predictions of S networks, one for each training seed, on the same N images. `labels`, int [N],
            and `correct`, bool [S,N], are used: with an attack, whether the clean and the attacked image are both
            classified correctly.
        weights: how often each image counts in each of R sets of images, such as resampled ones, float or int [R,N], at
            least 0.

    Returns:
        The lowest accuracy in [0,1] for each set and network, [R,S].
    """
    return np.nanmin(class_accuracies(predictions, weights), axis=-1)


def support(predictions: Predictions) -> int:
    """Returns the number of images of the smallest class, on which the lowest class accuracy can rest.

    Args:
        predictions: the predictions of S networks, one for each training seed, on the same N images. Only `labels`, int
            [N], is used; classes without an image do not count.
    """
    return int(np.unique(predictions.labels, return_counts=True)[1].min())
