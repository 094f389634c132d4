"""The attack under which `best` is chosen."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from robust_distillation.attacks import pgd_trades
from robust_distillation.attacks.apgd import correct_under_apgd
from robust_distillation.attacks.core import maximise
from robust_distillation.data.dataset import Dataset
from robust_distillation.losses import cross_entropy
from robust_distillation.models.frozen import frozen
from robust_distillation.randomness import derived_seed, generator
from robust_distillation.settings import Selection, ThreatModel

BATCH = 500  # fixed, for a random start depends on who is in the batch


def held_on_selection(
    model: nn.Module,
    data: Dataset,
    threat: ThreatModel,
    selection: Selection,
    seed: int,
    device: torch.device,
    between: Callable[[], None] = lambda: None,
) -> tuple[Tensor, Tensor]:
    """Booleans [N] twice: right on the clean image, and under the attack that selection names. APGD-CE leaves alone
    what is wrong already; under the others, as in the released codes, only the attacked image counts. `between` is
    called after every batch."""
    clean, held = [], []
    for number, part in enumerate(torch.arange(len(data)).split(BATCH)):
        x, labels = data.floats(data.images[part]).to(device), data.labels[part].to(device)
        if selection.by == "apgd":
            right, robust = correct_under_apgd(model, x, labels, threat, selection.steps, seed)
        else:
            attack = {"pgd10": _pgd10, "pgd_trades": pgd_trades.attack}[selection.by]
            adversarial = attack(model, x, labels, threat, derived_seed(seed, number))
            with frozen(model), torch.no_grad():
                right, robust = model(x).argmax(1) == labels, model(adversarial).argmax(1) == labels
        clean.append(right)
        held.append(robust)
        between()
    return torch.cat(clean), torch.cat(held)


def _pgd10(model: nn.Module, x: Tensor, labels: Tensor, threat: ThreatModel, seed: int) -> Tensor:
    """IAD's: 10 steps of 2/255 on the cross-entropy from a uniform start that is not clamped to [0,1]."""
    return maximise(
        model,
        x,
        lambda logits: cross_entropy(logits, labels),
        threat,
        steps=10,
        step_size=2 / 255,
        start="uniform",
        generator=generator(seed, "pgd10"),
        project_start=False,
    )
