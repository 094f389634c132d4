"""A short APGD-CE, the attack that chooses `best` on the validation split: plain PGD has reversed orders that
AutoAttack then restored."""

from __future__ import annotations

import torch
from pyautoattack.autopgd_base import APGDAttack
from torch import Tensor, nn

from robust_distillation.models.frozen import frozen
from robust_distillation.settings import ThreatModel

SPELT = {"linf": "Linf", "l2": "L2"}  # norms as pyautoattack names them


def held_against_apgd(
    model: nn.Module, x: Tensor, labels: Tensor, threat: ThreatModel, steps: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Booleans [N] twice: right on x, and right both on x and after `steps` steps of APGD on the cross-entropy. All in
    one batch: the random start depends on who is in it."""
    with frozen(model):
        return _held(model, x, labels, threat, steps, seed)


def _held(
    model: nn.Module, x: Tensor, labels: Tensor, threat: ThreatModel, steps: int, seed: int
) -> tuple[Tensor, Tensor]:
    apgd = APGDAttack(
        model,
        n_iter=steps,
        n_restarts=1,
        norm=SPELT[threat.norm],
        eps=threat.eps,
        seed=seed,
        loss="ce",
        device=x.device,
    )
    with torch.no_grad():
        clean = model(x).argmax(1) == labels
    held = clean.clone()
    if clean.any():
        adversarial = apgd.perturb(x, labels)
        with torch.no_grad():
            held &= model(adversarial).argmax(1) == labels
    return clean, held
