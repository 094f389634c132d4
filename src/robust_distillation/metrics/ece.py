"""The mean distance of accuracy from confidence, by bins of confidence (expected calibration error).

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3: the confidence, which is the largest
softmax probability, falls into one of 15 bins ((m - 1)/15, m/15] of equal width. The error is the mean over the images
of the absolute difference (L1) between mean confidence and accuracy of the image's bin. Under an attack, confidence and
prediction are those of the attacked image. With few images the error is too large, because noise in a bin never cancels
out: see docs/statistics.md.
"""

from __future__ import annotations

import numpy as np

from robust_distillation.metrics.contract import Predictions

TITLE = "ECE"
HIGHER_IS_BETTER = False
NEEDS = ("predicted", "confidence")
BINS = 15


def measure(predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    """Computes the expected calibration error (ECE) of each network, with 15 bins of equal width.

    The confidence is the softmax probability of the predicted class. Images are sorted by it into the bins ((m-1)/15,
    m/15]. The error is the sum over the bins of the share of images in the bin times |mean confidence - accuracy| of
    the bin (Guo et al., ICML 2017). Accuracy means that the class predicted for the image, clean or attacked, is the
    label.

    Args:
        predictions: the predictions of S networks, one for each training seed, on the same N images. `labels`, int [N],
            `predicted`, int [S,N], and `confidence`, float [S,N] in [0,1], are used.
        weights: how often each image counts in each of R sets of images, such as resampled ones, float or int [R,N], at
            least 0.

    Returns:
        The error in [0,1] for each set and network, [R,S].
    """
    gaps = (predictions.predicted == predictions.labels) - predictions.confidence.astype(float)
    bins = np.searchsorted(np.arange(1, BINS) / BINS, predictions.confidence)  # an edge belongs to the bin below it
    sums = [weights @ (gap[:, None] * (own[:, None] == np.arange(BINS))) for gap, own in zip(gaps, bins, strict=True)]
    return np.abs(sums).sum(-1).T / weights.sum(-1, keepdims=True)
