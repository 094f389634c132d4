"""PGD_TRADES of the RSLAD paper, after TRADES' evaluation script: 20 steps of 0.003 on the cross-entropy.

The start is uniform in the ball and in [0,1], as in RSLAD's code, which chooses its `best` by this attack. TRADES'
script has eps = 0.031, RSLAD 8/255; here it is the threat model's.
"""

from __future__ import annotations

from torch import Tensor, nn

from robust_distillation.attacks.core import published_pgd
from robust_distillation.losses import cross_entropy
from robust_distillation.settings import ThreatModel

NORMS = ("linf",)


def attack(model: nn.Module, x: Tensor, labels: Tensor, threat: ThreatModel, seed: int) -> Tensor:
    return published_pgd(
        "pgd_trades", model, x, lambda logits: cross_entropy(logits, labels), threat, seed, steps=20, step_size=0.003
    )
