"""The attack under which `best` is chosen."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robust_distillation.attacks.apgd import held_against_apgd
from robust_distillation.attacks.core import maximise
from robust_distillation.config import Selection, ThreatModel
from robust_distillation.data.dataset import Dataset
from robust_distillation.losses import cross_entropy
from robust_distillation.models.frozen import frozen
from robust_distillation.randomness import generator

BATCH = 500  # fixed, for a random start depends on who is in the batch
# Plain PGD on the cross-entropy from a uniform start, as the released codes select: steps, step size, and whether the
# start is clamped to [0,1] (RSLAD does, IAD does not).
PLAIN = {"pgd_trades": (20, 0.003, True), "pgd10": (10, 2 / 255, False)}


def held_on_selection(
    model: nn.Module, data: Dataset, threat: ThreatModel, selection: Selection, seed: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Booleans [N] twice: right on the clean image, and under the attack that selection names. APGD-CE leaves alone
    what is wrong already; under the others, as in the released codes, only the attacked image counts."""
    clean, held = [], []
    for number, part in enumerate(torch.arange(len(data)).split(BATCH)):
        x, labels = data.floats(data.images[part]).to(device), data.labels[part].to(device)
        if selection.by == "apgd":
            found = held_against_apgd(model, x, labels, threat, selection.steps, seed)
        else:
            found = _held_against_pgd(model, x, labels, threat, *PLAIN[selection.by], generator(seed, number))
        clean.append(found[0])
        held.append(found[1])
    return torch.cat(clean), torch.cat(held)


def _held_against_pgd(
    model: nn.Module,
    x: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    steps: int,
    step_size: float,
    project_start: bool,
    noise: torch.Generator,
) -> tuple[Tensor, Tensor]:
    adversarial = maximise(
        model,
        x,
        lambda logits: cross_entropy(logits, labels),
        threat,
        steps=steps,
        step_size=step_size,
        start="uniform",
        generator=noise,
        project_start=project_start,
    )
    with frozen(model), torch.no_grad():
        clean = model(x).argmax(1) == labels
        return clean, model(adversarial).argmax(1) == labels
