"""FGSM (Goodfellow et al., ICLR 2015): one step of eps on the cross-entropy, no random start."""

from __future__ import annotations

from torch import Tensor, nn

from robust_distillation.attacks.core import maximise
from robust_distillation.losses import cross_entropy
from robust_distillation.settings import ThreatModel

NORMS = ("linf", "l2")


def attack(model: nn.Module, x: Tensor, labels: Tensor, threat: ThreatModel, seed: int) -> Tensor:
    return maximise(
        model, x, lambda logits: cross_entropy(logits, labels), threat, steps=1, step_size=threat.eps, start="zero"
    )
