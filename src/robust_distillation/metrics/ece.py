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
    """Computes the expected calibration error.

    Args:
        predictions: those of S networks on N images, with confidences in [0,1].
        weights: [R,N], how often each image counts, for R sets of images.

    Returns:
        The error in [0,1] for each set and network, [R,S].
    """
    gaps = (predictions.predicted == predictions.labels) - predictions.confidence.astype(float)
    bins = np.searchsorted(np.arange(1, BINS) / BINS, predictions.confidence)  # an edge belongs to the bin below it
    sums = [weights @ (gap[:, None] * (own[:, None] == np.arange(BINS))) for gap, own in zip(gaps, bins, strict=True)]
    return np.abs(sums).sum(-1).T / weights.sum(-1, keepdims=True)
