"""PGD-20 (Madry et al., ICLR 2018): 20 steps of eps/4 on the cross-entropy from a uniform start (2/255 at 8/255)."""

from __future__ import annotations

from torch import Tensor, nn

from robust_distillation.attacks.core import pgd, starting_noise
from robust_distillation.losses import cross_entropy
from robust_distillation.randomness import generator
from robust_distillation.settings import ThreatModel

NORMS = ("linf", "l2")
AUGMENTABLE = True


def attack(model: nn.Module, x: Tensor, labels: Tensor, threat: ThreatModel, seed: int) -> Tensor:
    """Attacks with PGD-20: 20 steps of size eps/4 on the cross-entropy, from a uniform random start in the ball.

    Args:
        model: network to attack; maps images [N,C,H,W] in [0,1] to logits [N,K]. It is in eval mode during the
            attack; afterwards weights, buffers and modes are as before.
        x: clean images, float32 [N,C,H,W] in [0,1], on the device of the model.
        labels: true classes, int64 [N], on the same device.
        threat: norm (`linf` or `l2`) and maximum size `eps` of the perturbation, in units of pixels in [0,1], such as
            8/255.
        seed: seed of the random start. The same seed gives the same x' for the same batch.

    Returns:
        Adversarial images x', float32 [N,C,H,W] in [0,1], each within `threat.eps` of its x.
    """
    return pgd(
        model,
        x,
        lambda x, logits, labels: cross_entropy(logits, labels),
        threat,
        steps=20,
        step_size=threat.eps / 4,
        noise=starting_noise(x, threat, "uniform", generator(seed, "pgd20")),
        objective_args=(labels,),
    )
