"""MI-FGSM (Dong et al., CVPR 2018): 10 steps of eps/10 along a momentum of the gradients, no random start.

It is the attack on which AutoMA and other works on transfer build. The decay of the momentum is 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robust_distillation.attacks.core import TINY, direction, per_image, project
from robust_distillation.losses import cross_entropy
from robust_distillation.models.frozen import frozen
from robust_distillation.settings import ThreatModel

NORMS = ("linf", "l2")
AUGMENTABLE = True
STEPS, DECAY = 10, 1.0


def attack(model: nn.Module, x: Tensor, labels: Tensor, threat: ThreatModel, seed: int) -> Tensor:
    """Attacks with MI-FGSM: 10 steps of size eps/10 along the sum of the gradients of the cross-entropy so far.

    Each gradient is divided by the mean of the absolute values of its entries before it is added, image by image.

    Args:
        model: network to attack; maps images [N,C,H,W] in [0,1] to logits [N,K]. It is in eval mode during the
            attack; afterwards weights, buffers and modes are as before.
        x: clean images, float32 [N,C,H,W] in [0,1], on the device of the model.
        labels: true classes, int64 [N], on the same device.
        threat: norm (`linf` or `l2`) and maximum size `eps` of the perturbation, in units of pixels in [0,1], such as
            8/255.
        seed: not used: MI-FGSM draws no random numbers.

    Returns:
        Adversarial images x', float32 [N,C,H,W] in [0,1], each within `threat.eps` of its x.
    """
    adversarial, momentum = x.detach(), torch.zeros_like(x)
    with frozen(model):
        for _ in range(STEPS):
            adversarial = adversarial.detach().requires_grad_(True)
            with torch.enable_grad():
                loss = cross_entropy(model(adversarial), labels).sum()
            [gradient] = torch.autograd.grad(loss, [adversarial])
            size = gradient.flatten(1).abs().mean(1).clamp(min=TINY)
            momentum = DECAY * momentum + gradient / per_image(size)
            moved = adversarial.detach() + threat.eps / STEPS * direction(momentum, threat)
            adversarial = project(x, moved, threat)
    return adversarial
