"""Accuracy against the size of the perturbation, and attacked images to look at."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robust_distillation.attacks import pgd20
from robust_distillation.attacks.apgd import held_against_apgd
from robust_distillation.models.frozen import frozen
from robust_distillation.randomness import derived_seed
from robust_distillation.settings import ThreatModel

BATCH = 500  # fixed, for the attack's random start depends on who is in the batch
STEPS = 50
ATTACK = f"APGD-CE, {STEPS} steps"  # it has no step size that would have to be tuned for each eps
GALLERY_ATTACK = "PGD-20"


def robustness_curve(
    model: nn.Module, x: Tensor, labels: Tensor, norm: str, distances: list[float], seed: int
) -> dict[str, Any]:
    """Accuracy in percent, in [0, 100], on images x [N,C,H,W] in [0,1] under an attack of each eps in `distances`,
    ascending; JSON-able. The first point is eps 0, the clean accuracy.

    An image holds at eps if it is right both on x and on x'. One that fell at a smaller eps is not attacked again at a
    larger one: its adversarial image lies in the larger ball too. So the curve never rises.
    """
    held = torch.zeros(1 + len(distances), dtype=torch.int64)
    for number, (batch, truth) in enumerate(zip(x.split(BATCH), labels.split(BATCH), strict=True)):
        with frozen(model), torch.no_grad():
            standing = model(batch).argmax(1) == truth
        held[0] += standing.sum().cpu()
        for place, eps in enumerate(distances, start=1):
            batch, truth = batch[standing], truth[standing]
            if not len(batch):
                break
            attack_seed = derived_seed(seed, "robustness", number, place) % 2**31
            threat = ThreatModel(norm=norm, eps=eps)
            _, standing = held_against_apgd(model, batch, truth, threat, STEPS, attack_seed)
            held[place] += standing.sum().cpu()
    return {
        "attack": ATTACK,
        "norm": norm,
        "images": len(x),
        "eps": [0.0, *distances],
        "accuracy": [100 * count / len(x) for count in held.tolist()],
    }


def gallery(model: nn.Module, x: Tensor, labels: Tensor, threat: ThreatModel, seed: int) -> dict[str, np.ndarray]:
    """Images x [K,C,H,W] and what PGD-20 on the model makes of them, float32 in [0,1]; labels, prediction and
    adversarial_prediction, int64 [K]."""
    adversarial = pgd20.attack(model, x, labels, threat, derived_seed(seed, "gallery"))
    with frozen(model), torch.no_grad():
        prediction, attacked = model(x).argmax(1), model(adversarial).argmax(1)
    named = {
        "x": x,
        "adversarial": adversarial,
        "labels": labels,
        "prediction": prediction,
        "adversarial_prediction": attacked,
    }
    return {name: tensor.cpu().numpy() for name, tensor in named.items()}
