"""FGSM (Goodfellow et al., ICLR 2015): one step of eps on the cross-entropy, no random start."""

from __future__ import annotations

from torch import Tensor, nn

from robust_distillation.attacks.core import pgd
from robust_distillation.losses import cross_entropy
from robust_distillation.settings import ThreatModel

NORMS = ("linf", "l2")
AUGMENTABLE = True


def attack(model: nn.Module, x: Tensor, labels: Tensor, threat: ThreatModel, seed: int) -> Tensor:
    """Attacks with FGSM: one step of size eps along the gradient of the cross-entropy, without a random start.

    Args:
        model: network to attack; maps images [N,C,H,W] in [0,1] to logits [N,K]. It is in eval mode during the
            attack; afterwards weights, buffers and modes are as before.
        x: clean images, float32 [N,C,H,W] in [0,1], on the device of the model.
        labels: true classes, int64 [N], on the same device.
        threat: norm (`linf` or `l2`) and maximum size `eps` of the perturbation, in units of pixels in [0,1], such as
            8/255.
        seed: not used: FGSM draws no random numbers.

    Returns:
        Adversarial images x', float32 [N,C,H,W] in [0,1], each within `threat.eps` of its x.
    """
    return pgd(
        model,
        x,
        lambda x, logits, labels: cross_entropy(logits, labels),
        threat,
        steps=1,
        step_size=threat.eps,
        objective_args=(labels,),
    )
