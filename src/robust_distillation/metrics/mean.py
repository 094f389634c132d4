"""The mean of the accuracy on clean images and that under the attack."""

from __future__ import annotations

import numpy as np

from robust_distillation.metrics.contract import Predictions

TITLE = "Mean with clean"


def per_image(predictions: Predictions) -> np.ndarray:
    """Returns the mean of clean and robust correctness for each image.

    Args:
        predictions: the predictions of S networks, one for each training seed, on the same N images. `clean_correct`
            and `correct`, bool [S,N], are used.

    Returns:
        [S,N]: 1 if the image is classified correctly both with and without the attack, 0.5 if only without it, else 0.
    """
    return (predictions.clean_correct + predictions.correct.astype(float)) / 2
