"""APGD on the cross-entropy, then targeted APGD: the first two of the four attacks of standard AutoAttack.

It costs about a fifth of AutoAttack's passes. It is not AutoAttack and must not be called so: FAB-T and Square follow
there, and find more where gradients are masked.
"""

from __future__ import annotations

from pyautoattack import AutoAttack
from torch import Tensor, nn

from robust_distillation.attacks.apgd import NORM_NAMES
from robust_distillation.models.frozen import frozen
from robust_distillation.settings import ThreatModel

NORMS = ("linf", "l2")
CLASSES = 4  # minimum number: the loss of APGD-T uses the four largest logits
STAGES = ("apgd-ce", "apgd-t")


def attack(model: nn.Module, x: Tensor, labels: Tensor, threat: ThreatModel, seed: int) -> Tensor:
    """Attacks with APGD-CE (100 steps), then APGD-T (100 steps for each of nine targets) where that failed.

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
        For an image that is misclassified without an attack, or that neither attack makes misclassified, x' is x.
    """
    return run(STAGES, model, x, labels, threat, seed)


def run(stages: tuple[str, ...], model: nn.Module, x: Tensor, labels: Tensor, threat: ThreatModel, seed: int) -> Tensor:
    """Runs some of the four attacks of standard AutoAttack, each on the images that those before it left correct.

    Args:
        stages: names of the attacks in pyautoattack, in their order: `apgd-ce`, `apgd-t`, `fab-t` and `square`.
        model: see `attack`.
        x: see `attack`.
        labels: see `attack`.
        threat: see `attack`.
        seed: see `attack`. Each stage begins with it.

    Returns:
        Adversarial images x' as `attack` returns them.
    """
    with frozen(model):
        reference = AutoAttack(model, norm=NORM_NAMES[threat.norm], eps=threat.eps, seed=seed, device=x.device)
        reference.attacks_to_run = list(stages)
        # Standard AutoAttack targets nine classes. With fewer than ten classes, every wrong class is a target.
        targets = min(9, model(x[:1]).shape[1] - 1)
        reference.apgd_targeted.n_target_classes = reference.fab.n_target_classes = targets
        adversarial, _ = reference.run_standard_evaluation(x, labels, batch_size=len(x))
    return adversarial
