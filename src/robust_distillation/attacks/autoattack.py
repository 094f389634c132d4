"""Standard AutoAttack (Croce and Hein, ICML 2020): APGD-CE, APGD-T, FAB-T and Square, by PyPI's pyautoattack."""

from __future__ import annotations

from pyautoattack import AutoAttack
from torch import Tensor, nn

from robust_distillation.attacks.apgd import NORM_NAMES
from robust_distillation.models.frozen import frozen
from robust_distillation.settings import ThreatModel

NORMS = ("linf", "l2")
CLASSES = 4  # minimum number: the loss of APGD-T uses the four largest logits


def attack(model: nn.Module, x: Tensor, labels: Tensor, threat: ThreatModel, seed: int) -> Tensor:
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

    Returns:
        Adversarial images x', float32 [N,C,H,W] in [0,1], each within `threat.eps` of its x.
        For an image that is misclassified without an attack, or that no attack makes misclassified, x' is x.
    """
    with frozen(model):
        reference = AutoAttack(model, norm=NORM_NAMES[threat.norm], eps=threat.eps, seed=seed, device=x.device)
        # Standard AutoAttack targets nine classes. With fewer than ten classes, every wrong class is a target.
        targets = min(9, model(x[:1]).shape[1] - 1)
        reference.apgd_targeted.n_target_classes = reference.fab.n_target_classes = targets
        adversarial, _ = reference.run_standard_evaluation(x, labels, batch_size=len(x))
    return adversarial
