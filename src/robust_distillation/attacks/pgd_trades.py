"""PGD_TRADES of the RSLAD paper, after TRADES' evaluation script: 20 steps of 0.003 on the cross-entropy.

The start is uniform in the ball and clipped to [0,1], as in RSLAD's code, which selects its `best` checkpoint by this
attack. TRADES' script uses eps = 0.031 and RSLAD's 8/255; here eps is the threat model's.
"""

from __future__ import annotations

from torch import Tensor, nn

from robust_distillation.attacks.core import linf_pgd
from robust_distillation.losses import cross_entropy
from robust_distillation.settings import ThreatModel

NORMS = ("linf",)
AUGMENTABLE = True


def attack(model: nn.Module, x: Tensor, labels: Tensor, threat: ThreatModel, seed: int) -> Tensor:
    """Attacks with PGD_TRADES: 20 steps of size 0.003 on the cross-entropy, from a uniform random start in the ball.

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
        "pgd_trades",
        model,
        x,
        lambda x, logits, labels: cross_entropy(logits, labels),
        labels,
        threat,
        seed,
        steps=20,
        step_size=0.003,
    )
