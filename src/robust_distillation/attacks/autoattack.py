"""Standard AutoAttack (Croce and Hein, ICML 2020): APGD-CE, APGD-T, FAB-T and Square, by PyPI's pyautoattack."""

from __future__ import annotations

from pyautoattack import AutoAttack
from torch import Tensor, nn

from robust_distillation.attacks.apgd import SPELT
from robust_distillation.models.frozen import frozen
from robust_distillation.settings import ThreatModel

NORMS = ("linf", "l2")
CLASSES = 4  # at least: the targeted loss of APGD-T looks at the four largest logits


def attack(model: nn.Module, x: Tensor, labels: Tensor, threat: ThreatModel, seed: int) -> Tensor:
    """One call on the whole block: its random numbers depend on who is in the batch, so a block is never split."""
    with frozen(model):
        reference = AutoAttack(model, norm=SPELT[threat.norm], eps=threat.eps, seed=seed, device=x.device)
        # The standard has nine targets, which takes ten classes; with fewer, every wrong class is one.
        targets = min(9, model(x[:1]).shape[1] - 1)
        reference.apgd_targeted.n_target_classes = reference.fab.n_target_classes = targets
        adversarial, _ = reference.run_standard_evaluation(x, labels, batch_size=len(x))
    return adversarial
