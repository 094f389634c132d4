"""APGD on the cross-entropy (Croce and Hein, ICML 2020) by PyPI's pyautoattack.

A short run of it selects the `best` checkpoint on the validation split. Plain PGD would not do: selections by PGD have
ranked checkpoints in another order than AutoAttack.
"""

from __future__ import annotations

import torch
from pyautoattack.autopgd_base import APGDAttack
from torch import Tensor, nn

from robust_distillation.models.frozen import frozen
from robust_distillation.settings import ThreatModel

NORM_NAMES = {"linf": "Linf", "l2": "L2"}  # our name of a norm to pyautoattack's


def correct_under_apgd(
    model: nn.Module, x: Tensor, labels: Tensor, threat: ThreatModel, steps: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Attacks images with APGD on the cross-entropy (APGD-CE), and finds those that stay correctly classified.

    All images are attacked in one batch, since the random start of an image depends on the batch.

    Args:
        model: network to attack; maps images [N,C,H,W] in [0,1] to logits [N,K]. It is in eval mode during the attack;
            afterwards weights, buffers and modes are as before.
        x: clean images, float32 [N,C,H,W] in [0,1], on the device of the model.
        labels: true classes, int64 [N], on the same device.
        threat: norm (`linf` or `l2`) and maximum size `eps` of the perturbation, in units of pixels in [0,1], such as
            8/255.
        steps: number of APGD iterations, for example 10; there is one random start and no restart.
        seed: seed of the random start, which becomes torch's global seed.

    Returns:
        Two bool tensors [N] on the device of x. `clean_correct` is true if the model classifies the clean image
        correctly. `robust_correct` is true if it classifies both the clean and the attacked image correctly.
    """
    with frozen(model):
        return _correct_under_apgd(model, x, labels, threat, steps, seed)


def _correct_under_apgd(
    model: nn.Module, x: Tensor, labels: Tensor, threat: ThreatModel, steps: int, seed: int
) -> tuple[Tensor, Tensor]:
    apgd = APGDAttack(
        model,
        n_iter=steps,
        n_restarts=1,
        norm=NORM_NAMES[threat.norm],
        eps=threat.eps,
        seed=seed,
        loss="ce",
        device=x.device,
    )
    with torch.no_grad():
        clean_correct = model(x).argmax(1) == labels
    robust_correct = clean_correct.clone()
    if clean_correct.any():
        adversarial = apgd.perturb(x, labels)
        with torch.no_grad():
            robust_correct &= model(adversarial).argmax(1) == labels
    return clean_correct, robust_correct
