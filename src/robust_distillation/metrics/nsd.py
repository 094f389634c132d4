"""The standard deviation of the class accuracies, divided by their mean (normalised standard deviation).

Zhao et al., "Improving Adversarial Robust Fairness via Anti-Bias Soft Label Distillation" (ABSLD), NeurIPS 2024,
arXiv 2312.05508. Classes without a test image do not count. The standard deviation is that of the K classes that there
are, sqrt(sum_k (a_k - a)^2 / K), not an estimate for other classes. It is not defined where every class accuracy is 0.
"""

from __future__ import annotations

import numpy as np

from robust_distillation.metrics.contract import Predictions, class_accuracies

TITLE = "NSD"
UNIT = "fraction"
HIGHER_IS_BETTER = False


def measure(predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    """Computes the standard deviation of the class accuracies, divided by their mean, for each network.

    The standard deviation of the accuracies a_k of K classes with mean a is sqrt(sum_k (a_k - a)^2 / K). Classes
    without an image are left out.

    Args:
        predictions: the predictions of S networks, one for each training seed, on the same N images. `labels`, int [N],
            and `correct`, bool [S,N], are used.
        weights: how often each image counts in each of R sets of images, such as resampled ones, float or int [R,N], at
            least 0.

    Returns:
        The ratio for each set and network, [R,S], from 0 to sqrt(K - 1). NaN if no image is classified correctly.
    """
    accuracies = class_accuracies(predictions, weights)
    mean = np.nanmean(accuracies, axis=-1)
    return np.nanstd(accuracies, axis=-1) / np.where(mean > 0, mean, np.nan)
