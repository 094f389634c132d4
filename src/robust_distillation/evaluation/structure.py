"""Measures how a network's logits correlate between classes, and how far an attack moves its features.

GACD (Bai et al., arXiv 2009.09922) names these two analyses: structural knowledge and robust features. Its equations
were not available, so the definitions here are this project's. CRD (Tian et al., ICLR 2020) compares the class
correlations of logits as well.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robust_distillation.attacks import pgd20
from robust_distillation.models.frozen import frozen
from robust_distillation.models.output import output
from robust_distillation.randomness import derived_seed
from robust_distillation.settings import ThreatModel

BATCH = 100  # images per attack; fixed, since the attack's random start is drawn per batch
CONSTANT = 1e-6  # a logit whose range is below this fraction of its size counts as constant: the rest is rounding
DECIMALS = 6  # of the stored matrices


def structure_of(model: nn.Module, x: Tensor, labels: Tensor, threat: ThreatModel, seed: int) -> dict[str, Any]:
    """Measures how logits correlate between classes, and how far PGD-20 moves the features of one model.

    Args:
        model: network with a method `features` (images [N,C,H,W] in [0,1] to [N,D]) and a linear layer `classifier`
            (features to logits [N,K]). It is in eval mode during the computation; its mode is restored afterwards.
        x: clean images, float32 [N,C,H,W] in [0,1], on the model's device.
        labels: true classes, int64 [N], on the model's device.
        threat: norm (`linf` or `l2`) and maximum size `eps` of the perturbation, in units of pixels in [0,1], such as
            8/255.
        seed: seed of the attack's random start.

    Returns:
        A dict that can be written as JSON. x' is the adversarial image of x, and phi(x) are the features of x.

        - `images`: N. - `correlation`, `adversarial_correlation`: Pearson correlations between the logits of every two
        classes, over x and over x'. K lists of K numbers in [-1, 1]. A logit that is constant over the images has
        correlation 0 with every other. - `feature_distance`: mean over the images of ||phi(x') - phi(x)|| / ||phi(x)||.
        - `feature_cosine_distance`: mean over the images of 1 - cos(phi(x'), phi(x)), in [0, 2]. It is 1 for an image
        with phi(x') = 0. - `feature_images`: number of images in these two means. Images with phi(x) = 0 are left out.
        If no image is left, both means are None.
    """
    clean, adversarial, relative, cosine = [], [], [], []
    with frozen(model):
        for number, (x_batch, label_batch) in enumerate(zip(x.split(BATCH), labels.split(BATCH), strict=True)):
            x_adversarial = pgd20.attack(model, x_batch, label_batch, threat, derived_seed(seed, "structure", number))
            with torch.no_grad():
                before, after = output(model, x_batch), output(model, x_adversarial)
            clean.append(before.logits.cpu())
            adversarial.append(after.logits.cpu())
            distances = feature_distances(before.features, after.features)
            relative.append(distances[0].cpu())
            cosine.append(distances[1].cpu())
    return {
        "images": len(x),
        "correlation": class_correlation(torch.cat(clean)).round(DECIMALS).tolist(),
        "adversarial_correlation": class_correlation(torch.cat(adversarial)).round(DECIMALS).tolist(),
        "feature_distance": _mean(torch.cat(relative)),
        "feature_cosine_distance": _mean(torch.cat(cosine)),
        "feature_images": sum(map(len, relative)),
    }


def class_correlation(logits: Tensor) -> np.ndarray:
    """Computes the Pearson correlation between the logits of every two classes.

    Args:
        logits: float [N,K], for N images and K classes.

    Returns:
        float64 [K,K], symmetric, in [-1, 1], with 1 on the diagonal. A logit that is constant over the images has
        correlation 0 with every other.
    """
    values = logits.detach().cpu().double().numpy()
    varies = np.ptp(values, axis=0) > CONSTANT * np.abs(values).max(axis=0)
    matrix = np.zeros((values.shape[1], values.shape[1]))
    if varies.any():
        matrix[np.ix_(varies, varies)] = np.corrcoef(values[:, varies], rowvar=False)
    np.fill_diagonal(matrix, 1)
    return matrix


def correlation_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Computes the distance of two class-correlation matrices: the root mean square difference of their entries.

    It equals ||a - b||_F / K. It is 0 if and only if the matrices are equal, and at most sqrt(2), since both are
    positive semidefinite with trace K.

    Args:
        a: correlations of the logits of K classes, [K,K], as `class_correlation` returns them.
        b: correlations of another network or other images in the same form, [K,K].

    Returns:
        The distance, in [0, sqrt(2)].
    """
    difference = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    return float(np.linalg.norm(difference) / len(difference))


def feature_distances(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Computes how far an attack moves the features of each image: the relative and the cosine distance.

    Args:
        before: features of the clean images, [B,D].
        after: features of the adversarial images, [B,D].

    Returns:
        Two tensors, float64 [M]: ||after - before|| / ||before||, and 1 - cos(before, after) in [0, 2], which is 1 if
        `after` is zero. Images whose `before` is zero are left out, so M <= B.
    """
    before, after = before.double(), after.double()
    before, after = before[before.any(dim=1)], after[before.any(dim=1)]
    length = before.norm(dim=1)
    relative = (after - before).norm(dim=1) / length
    cosine = (before * after).sum(1) / (length * after.norm(dim=1)).clamp(min=torch.finfo(torch.float64).tiny)
    return relative, (1 - cosine).clamp(min=0, max=2)


def _mean(values: Tensor) -> float | None:
    return math.fsum(values.tolist()) / len(values) if len(values) else None
