"""Square (Andriushchenko et al., ECCV 2020) alone: random search by queries, no gradient, by PyPI's pyautoattack.

The settings are those of standard AutoAttack: 5,000 queries per image, one restart, and an initial p of 0.8 on a
schedule meant for 10,000 queries and not rescaled.
"""

from __future__ import annotations

from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from robust_distillation.attacks.apgd import NORM_NAMES
from robust_distillation.models.frozen import frozen
from robust_distillation.settings import ThreatModel

NORMS = ("linf", "l2")
QUERIES = 5000  # per image


def attack(model: nn.Module, x: Tensor, labels: Tensor, threat: ThreatModel, seed: int) -> Tensor:
    """Attacks with Square: at most 5,000 queries of the logits for each image, no gradient.

    Args:
        model: network to attack; maps images [N,C,H,W] in [0,1] to logits [N,K]. It is in eval mode during the
            attack; afterwards weights, buffers and modes are as before.
        x: clean images, float32 [N,C,H,W] in [0,1], on the device of the model.
        labels: true classes, int64 [N], on the same device.
        threat: norm (`linf` or `l2`) and maximum size `eps` of the perturbation, in units of pixels in [0,1], such as
            8/255.
        seed: seed of the random numbers, which becomes torch's global seed. The numbers depend on the batch: the same
            image in another batch gets another x'.

    Returns:
        Adversarial images x', float32 [N,C,H,W] in [0,1], each within `threat.eps` of its x.
        For an image that is misclassified without an attack, or that no query makes misclassified, x' is x.
    """
    search = SquareAttack(
        model,
        norm=NORM_NAMES[threat.norm],
        eps=threat.eps,
        n_queries=QUERIES,
        n_restarts=1,
        p_init=0.8,
        resc_schedule=False,
        seed=seed,
        device=x.device,
    )
    with frozen(model):
        return search.perturb(x, labels)
