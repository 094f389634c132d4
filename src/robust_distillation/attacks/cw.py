"""CW: the margin loss of Carlini and Wagner (S&P 2017), max_{k != y} z_k - z_y, maximised by PGD in the Linf ball.

20 steps of 2/255 from a uniform start. The RSLAD paper does not settle its settings: a report on it says 20 steps, and
related code (IAD, Fair-ARD) uses 30 steps of 2/255 with a confidence of 50. This attack takes the reported number of
steps and no confidence: the margin is maximised without bound. A confidence of 50 changes only images whose margin
already exceeds 50, so outcomes can differ only there.
"""

from __future__ import annotations

from torch import Tensor, nn

from robust_distillation.attacks.core import linf_pgd
from robust_distillation.losses import margin
from robust_distillation.settings import ThreatModel

NORMS = ("linf",)
AUGMENTABLE = True


def attack(model: nn.Module, x: Tensor, labels: Tensor, threat: ThreatModel, seed: int) -> Tensor:
    """Attacks with the CW loss: 20 steps of size 2/255 on the margin max_{k != y} z_k - z_y, from a random start.

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
        "cw",
        model,
        x,
        lambda x, logits, labels: margin(logits, labels),
        labels,
        threat,
        seed,
        steps=20,
        step_size=2 / 255,
    )
