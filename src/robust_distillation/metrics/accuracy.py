"""Accuracy: the share of images that are classified correctly, under an attack with and without it."""

from __future__ import annotations

import numpy as np

from robust_distillation.metrics.contract import Predictions


def per_image(predictions: Predictions) -> np.ndarray:
    """Returns for each image whether it is classified correctly: with an attack, whether clean and attacked both are.

    Args:
        predictions: the predictions of S networks, one for each training seed, on the same N images. Only `correct` is
            used, bool [S,N].

    Returns:
        bool [S,N]; the mean over the images is the accuracy of each network.
    """
    return predictions.correct
