"""Measures accuracy against the size of the perturbation, and makes examples of adversarial images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robust_distillation.attacks import pgd20
from robust_distillation.attacks.apgd import correct_under_apgd
from robust_distillation.models.frozen import frozen
from robust_distillation.randomness import derived_seed
from robust_distillation.settings import ThreatModel

BATCH = 500  # images per attack; fixed, since the attack's random start depends on the batch
STEPS = 50  # of APGD
ATTACK = f"APGD-CE, {STEPS} steps"  # APGD has no step size that would need tuning for each eps
GALLERY_ATTACK = "PGD-20"


def robustness_curve(
    model: nn.Module, x: Tensor, labels: Tensor, norm: str, distances: list[float], seed: int
) -> dict[str, Any]:
    """Measures the accuracy under APGD-CE (50 steps) for several perturbation sizes.

    An image counts as correct at eps if the predictions on the clean image x and on the adversarial image x' are both
    right. An image that is wrong at one eps counts as wrong at every larger eps without another attack: its x' lies in
    the larger ball too. So the curve never rises.

    Args:
        model: network to attack; maps images [N,C,H,W] in [0,1] to logits [N,K]. It is in eval mode during the attacks;
            its mode is restored afterwards.
        x: clean images, float32 [N,C,H,W] in [0,1], on the model's device.
        labels: true classes, int64 [N], on the model's device.
        norm: `linf` or `l2`.
        distances: values of eps, positive and ascending, in units of pixels in [0,1], such as [2/255, 8/255].
        seed: seed of the attacks' random starts.

    Returns:
        A dict that can be written as JSON: `attack` (its title, "APGD-CE, 50 steps"), `norm`, `images` (N), `eps` (list
        of 0.0 and `distances`) and `accuracy` (list of the same length: percent at each eps; the first is the clean
        accuracy).
    """
    n_correct = torch.zeros(1 + len(distances), dtype=torch.int64)
    for number, (x_batch, label_batch) in enumerate(zip(x.split(BATCH), labels.split(BATCH), strict=True)):
        with frozen(model), torch.no_grad():
            correct = model(x_batch).argmax(1) == label_batch
        n_correct[0] += correct.sum().cpu()
        for position, eps in enumerate(distances, start=1):
            x_batch, label_batch = x_batch[correct], label_batch[correct]
            if not len(x_batch):
                break
            attack_seed = derived_seed(seed, "robustness", number, position) % 2**31
            threat = ThreatModel(norm=norm, eps=eps)
            _, correct = correct_under_apgd(model, x_batch, label_batch, threat, STEPS, attack_seed)
            n_correct[position] += correct.sum().cpu()
    return {
        "attack": ATTACK,
        "norm": norm,
        "images": len(x),
        "eps": [0.0, *distances],
        "accuracy": [100 * count / len(x) for count in n_correct.tolist()],
    }


def gallery(model: nn.Module, x: Tensor, labels: Tensor, threat: ThreatModel, seed: int) -> dict[str, np.ndarray]:
    """Attacks some images with PGD-20 and returns clean and adversarial images with the predictions of the model, as
    examples for the report.

    Args:
        model: network to attack; maps images [N,C,H,W] in [0,1] to logits [N,K]. It is in eval mode during the attack;
            its mode is restored afterwards.
        x: clean images, float32 [N,C,H,W] in [0,1], on the model's device.
        labels: true classes, int64 [N], on the model's device.
        threat: norm (`linf` or `l2`) and largest size `eps` of the perturbation, in the unit of pixel values in [0, 1].
        seed: seed of the attack's random start.

    Returns:
        Arrays by name: `x` and `adversarial`, float32 [N,C,H,W] in [0,1]; `labels`, `prediction` (class predicted for
        the clean image) and `adversarial_prediction` (class predicted for the adversarial image), int64 [N].
    """
    adversarial = pgd20.attack(model, x, labels, threat, derived_seed(seed, "gallery"))
    with frozen(model), torch.no_grad():
        prediction, adversarial_prediction = model(x).argmax(1), model(adversarial).argmax(1)
    tensors = {
        "x": x,
        "adversarial": adversarial,
        "labels": labels,
        "prediction": prediction,
        "adversarial_prediction": adversarial_prediction,
    }
    return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
