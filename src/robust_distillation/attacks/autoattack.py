"""Standard AutoAttack (Croce and Hein, ICML 2020): APGD-CE, APGD-T, FAB-T and Square, by PyPI's pyautoattack."""

from __future__ import annotations

from torch import Tensor, nn

from robust_distillation.attacks import apgd_ce_t
from robust_distillation.settings import ThreatModel

NORMS = ("linf", "l2")
CLASSES = 4  # minimum number: the loss of APGD-T uses the four largest logits
CONTINUES = "apgd_ce_t"
STAGES = ("fab-t", "square")


def attack(
    model: nn.Module, x: Tensor, labels: Tensor, threat: ThreatModel, seed: int, start: Tensor | None = None
) -> Tensor:
    """Attacks with standard AutoAttack: APGD-CE, then APGD-T, FAB-T and Square.

    Each of the four attacks only the images that are still classified correctly after those before it.

    Args:
        model: network to attack; maps images [N,C,H,W] in [0,1] to logits [N,K]. It is in eval mode during the
            attack; afterwards weights, buffers and modes are as before.
        x: clean images, float32 [N,C,H,W] in [0,1], on the device of the model.
        labels: true classes, int64 [N], on the same device.
        threat: norm (`linf` or `l2`) and maximum size `eps` of the perturbation, in units of pixels in [0,1], such as
            8/255.
        seed: seed of the random numbers, which becomes torch's global seed. The numbers depend on the batch: the same
            image in another batch gets another x'.
        start: x' of the attack `apgd_ce_t`, which are the first two of the four, with the same other arguments. None:
            they are computed here. The result is the same.

    Returns:
        Adversarial images x', float32 [N,C,H,W] in [0,1], each within `threat.eps` of its x.
        For an image that is misclassified without an attack, or that no attack makes misclassified, x' is x.
    """
    found = apgd_ce_t.attack(model, x, labels, threat, seed) if start is None else start.clone()
    left = (found == x).flatten(1).all(1)
    if left.any():
        found[left] = apgd_ce_t.run(STAGES, model, x[left], labels[left], threat, seed)
    return found
