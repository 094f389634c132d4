"""Square (Andriushchenko et al., ECCV 2020) alone: random search by queries, no gradient, by PyPI's pyautoattack.

As in standard AutoAttack: 5,000 queries an image, one restart, p = 0.8 at first, on a schedule meant for 10,000 queries
and not rescaled. Images that hold come back unchanged.
"""

from __future__ import annotations

from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from robust_distillation.attacks.apgd import SPELT
from robust_distillation.models.frozen import frozen
from robust_distillation.settings import ThreatModel

NORMS = ("linf", "l2")
QUERIES = 5000


def attack(model: nn.Module, x: Tensor, labels: Tensor, threat: ThreatModel, seed: int) -> Tensor:
    """One call on the whole block: its random numbers depend on who is in the batch, so a block is never split."""
    search = SquareAttack(
        model,
        norm=SPELT[threat.norm],
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
