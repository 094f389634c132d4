"""PGD_SAT of the RSLAD paper, after Madry et al. (ICLR 2018): 20 steps of 2/255 on the cross-entropy, uniform start.

The paper's own settings were not available. The number of steps is taken from reports on the paper, the step size and
the start from papers that rerun its attack. At eps = 8/255 the settings equal those of `pgd20`, whose step size is
eps/4; only the random numbers differ.
"""

from __future__ import annotations

from torch import Tensor, nn

from robust_distillation.attacks.core import linf_pgd
from robust_distillation.losses import cross_entropy
from robust_distillation.settings import ThreatModel

NORMS = ("linf",)
AUGMENTABLE = True


def attack(model: nn.Module, x: Tensor, labels: Tensor, threat: ThreatModel, seed: int) -> Tensor:
    """Attacks with PGD_SAT: 20 steps of size 2/255 on the cross-entropy, from a uniform random start in the ball.

    Args:
        model: network to attack; maps images [N,C,H,W] in [0,1] to logits [N,K]. It is in eval mode during the
            attack; afterwards weights, buffers and modes are as before.
        x: clean images, float32 [N,C,H,W] in [0,1], on the device of the model.
        labels: true classes, int64 [N], on the same device.
        threat: norm (`linf` only) and maximum size `eps` of the perturbation, in units of pixels in [0,1], such as
            8/255.
        seed: seed of the random start. The same seed gives the same x' for the same batch.

    Returns:
        Adversarial images x', float32 [N,C,H,W] in [0,1], each within `threat.eps` of its x.

    Raises:
        UserError: if `threat.norm` is not `linf`: the step size is an absolute change of each pixel.
    """
    return linf_pgd(
        "pgd_sat",
        model,
        x,
        lambda x, logits, labels: cross_entropy(logits, labels),
        labels,
        threat,
        seed,
        steps=20,
        step_size=2 / 255,
    )
