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
    """Returns for each image whether the student predicts the class that its teacher predicts for the clean image.

    Args:
        predictions: the predictions of S networks, one for each training seed, on the same N images. `predicted`, int
            [S,N], are the students' classes for the image, clean or attacked; `teacher`, int [N], are the teacher's
            classes for the clean image.

    Returns:
        bool [S,N]; the mean over the images is the agreement of each network.
    """
    return predictions.predicted == predictions.teacher
