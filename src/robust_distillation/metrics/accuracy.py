"""Accuracy: the share of images that are classified correctly, under an attack with and without it."""

from __future__ import annotations

import numpy as np

from robust_distillation.metrics.contract import Predictions


def per_image(predictions: Predictions) -> np.ndarray:
    """Returns for each image whether it is classified correctly, bool [S,N] for S networks and N images.

    Args:
        predictions: those of the networks.
    """
    return predictions.correct
