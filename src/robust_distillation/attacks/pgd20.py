"""PGD-20 (Madry et al., ICLR 2018): 20 steps of eps/4 on the cross-entropy from a uniform start (2/255 at 8/255)."""

from __future__ import annotations

from torch import Tensor, nn

from robust_distillation.attacks.core import maximise
from robust_distillation.losses import cross_entropy
from robust_distillation.randomness import generator
from robust_distillation.settings import ThreatModel

NORMS = ("linf", "l2")


def attack(model: nn.Module, x: Tensor, labels: Tensor, threat: ThreatModel, seed: int) -> Tensor:
    return maximise(
        model,
        x,
        lambda logits: cross_entropy(logits, labels),
        threat,
        steps=20,
        step_size=threat.eps / 4,
        start="uniform",
        generator=generator(seed, "pgd20"),
    )
