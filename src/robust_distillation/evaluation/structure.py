"""What a network's logits say of the classes' likeness, and how far an attack moves its features.

Two analyses named by GACD (Bai et al., arXiv 2009.09922): structural knowledge and robust features. Its equations were
not available, so the definitions are ours; class correlations of the logits are what CRD (Tian et al., ICLR 2020)
compares.
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

BATCH = 100  # fixed, for the attack's random start is drawn per batch
CONSTANT = 1e-6  # a logit whose range is below this share of its size only shows rounding
DECIMALS = 6  # of the stored matrices


def structure_of(model: nn.Module, x: Tensor, labels: Tensor, threat: ThreatModel, seed: int) -> dict[str, Any]:
    """What one model does with images x [N,C,H,W] in [0,1] and with x', PGD-20 on this very model; JSON-able.

    images: N. correlation, adversarial_correlation: `class_correlation` of the logits on x and on x', as K lists of K.
    feature_distance: mean of ||phi(x') - phi(x)|| / ||phi(x)|| over the images, >= 0. feature_cosine_distance: mean of
    1 - cos(phi(x'), phi(x)), in [0, 2]; 1 where phi(x') is zero. An image with phi(x) = 0 has neither and is left out
    of both means; feature_images: how many were not. Without any the two are None.
    The model is in eval mode meanwhile and comes back as it was.
    """
    clean, adversarial, relative, cosine = [], [], [], []
    with frozen(model):
        for number, (batch, truth) in enumerate(zip(x.split(BATCH), labels.split(BATCH), strict=True)):
            attacked = pgd20.attack(model, batch, truth, threat, derived_seed(seed, "structure", number))
            with torch.no_grad():
                before, after = output(model, batch), output(model, attacked)
            clean.append(before.logits.cpu())
            adversarial.append(after.logits.cpu())
            moved = feature_distances(before.features, after.features)
            relative.append(moved[0].cpu())
            cosine.append(moved[1].cpu())
    return {
        "images": len(x),
        "correlation": class_correlation(torch.cat(clean)).round(DECIMALS).tolist(),
        "adversarial_correlation": class_correlation(torch.cat(adversarial)).round(DECIMALS).tolist(),
        "feature_distance": _mean(torch.cat(relative)),
        "feature_cosine_distance": _mean(torch.cat(cosine)),
        "feature_images": sum(map(len, relative)),
    }


def class_correlation(logits: Tensor) -> np.ndarray:
    """Pearson correlation over N images between the logits [N,K] of each two classes: [K,K], symmetric, in [-1, 1].

    A logit that is the same for all images correlates with no other: 0, and 1 with itself.
    """
    values = logits.detach().cpu().double().numpy()
    varies = np.ptp(values, axis=0) > CONSTANT * np.abs(values).max(axis=0)
    matrix = np.zeros((values.shape[1], values.shape[1]))
    if varies.any():
        matrix[np.ix_(varies, varies)] = np.corrcoef(values[:, varies], rowvar=False)
    np.fill_diagonal(matrix, 1)
    return matrix


def correlation_distance(a: np.ndarray, b: np.ndarray) -> float:
    """||a - b||_F / K of two class-correlation matrices [K,K]: the root mean square of their entries' differences.

    0 if and only if they are equal, and at most sqrt(2): both are positive semidefinite with trace K.
    """
    difference = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    return float(np.linalg.norm(difference) / len(difference))


def feature_distances(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Relative and cosine distance, float64 [M] each, of features [B,D] from what they were before; M <= B, for those
    that were zero are left out."""
    before, after = before.double(), after.double()
    before, after = before[before.any(dim=1)], after[before.any(dim=1)]
    length = before.norm(dim=1)
    relative = (after - before).norm(dim=1) / length
    cosine = (before * after).sum(1) / (length * after.norm(dim=1)).clamp(min=torch.finfo(torch.float64).tiny)
    return relative, (1 - cosine).clamp(min=0, max=2)


def _mean(values: Tensor) -> float | None:
    return math.fsum(values.tolist()) / len(values) if len(values) else None
