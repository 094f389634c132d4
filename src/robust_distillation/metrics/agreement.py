"""The share of images for which the student predicts the class that its teacher predicts for the clean image.

Under an attack the student classifies the attacked image.
Networks without a teacher, and those with several, have no agreement.
"""

from __future__ import annotations

import numpy as np

from robust_distillation.metrics.contract import Predictions

TITLE = "Agreement"
NEEDS = ("predicted", "teacher")


def per_image(predictions: Predictions) -> np.ndarray:
    """Tells for each image whether the student predicts the class that the teacher predicts for the clean image.

    Args:
        predictions: those of S networks on N images, and of their teacher.

    Returns:
        bool [S,N].
    """
    return predictions.predicted == predictions.teacher
