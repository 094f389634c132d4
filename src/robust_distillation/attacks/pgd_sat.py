"""PGD_SAT of the RSLAD paper, after Madry et al. (ICLR 2018): 20 steps of 2/255 on the cross-entropy, uniform start.

20 steps are read in reports on the paper; the step and the start in re-runs of it, for the paper's own were not
available. At eps = 8/255 it is pgd20, whose step is eps/4, under another seed.
"""

from __future__ import annotations

from torch import Tensor, nn

from robust_distillation.attacks.core import published_pgd
from robust_distillation.losses import cross_entropy
from robust_distillation.settings import ThreatModel

NORMS = ("linf",)


def attack(model: nn.Module, x: Tensor, labels: Tensor, threat: ThreatModel, seed: int) -> Tensor:
    return published_pgd(
        "pgd_sat", model, x, lambda logits: cross_entropy(logits, labels), threat, seed, steps=20, step_size=2 / 255
    )
