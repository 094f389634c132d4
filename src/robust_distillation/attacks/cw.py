"""CW: the margin loss of Carlini and Wagner (S&P 2017), max_{k != y} z_k - z_y, maximised by PGD in the Linf ball.

20 steps of 2/255 from a uniform start. The RSLAD paper's own settings are not settled: a report on it says 20 steps,
the code of its neighbours (IAD, Fair-ARD) has 30 of 2/255 and a confidence of 50. Here the number is the reported one,
and there is no confidence: the margin is maximised without bound. A confidence of 50 is the same but for images that
already lose by 50 logits, so the outcome differs at most there.
"""

from __future__ import annotations

from torch import Tensor, nn

from robust_distillation.attacks.core import published_pgd
from robust_distillation.losses import margin
from robust_distillation.settings import ThreatModel

NORMS = ("linf",)


def attack(model: nn.Module, x: Tensor, labels: Tensor, threat: ThreatModel, seed: int) -> Tensor:
    return published_pgd(
        "cw", model, x, lambda logits: margin(logits, labels), threat, seed, steps=20, step_size=2 / 255
    )
