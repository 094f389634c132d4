"""Attacks the checkpoints of one run, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from robust_distillation import attacks
from robust_distillation.config import ON_SURROGATE, ThreatModel
from robust_distillation.data.dataset import Dataset
from robust_distillation.evaluation.blocks import Block
from robust_distillation.models.checkpoint import load_model, read_checkpoint, weights_digest


def attack_run(
    checkpoints: dict[str, Path],
    data: Dataset,
    todo: list[Block],
    names: list[str],
    threat: ThreatModel,
    device: torch.device,
    surrogate: nn.Module | None = None,
    on_block: Callable[[str, Block], None] = lambda checkpoint, block: None,
) -> pd.DataFrame:
    """The outcomes of all `checkpoints` (name to file), attacked once where their weights are equal. Attacks named
    transfer_... are crafted on `surrogate`."""
    found: dict[str, pd.DataFrame] = {}
    frames = []
    for checkpoint, path in checkpoints.items():
        weights = weights_digest(read_checkpoint(path)[0])
        if weights not in found:
            model = load_model(path).to(device)
            parts = []
            for block in todo:
                parts.append(attack_block(model, data, block, names, threat, device, surrogate))
                on_block(checkpoint, block)
            found[weights] = pd.concat(parts, ignore_index=True)
        frames.append(found[weights].assign(checkpoint=checkpoint))
    return pd.concat(frames, ignore_index=True)


def attack_block(
    model: nn.Module,
    data: Dataset,
    block: Block,
    names: Iterable[str],
    threat: ThreatModel,
    device: torch.device,
    surrogate: nn.Module | None = None,
) -> pd.DataFrame:
    """One row per image: index, label, prediction, block, attack_seed, and per attack whether it held.

    Held means that both the clean and the attacked prediction are right.
    """
    part = slice(block.start, block.stop)
    x, labels = data.floats(data.images[part]).to(device), data.labels[part].to(device)
    prediction = predict(model, x)
    columns: dict[str, Any] = {
        "index": range(block.start, block.stop),
        "label": labels.cpu().numpy(),
        "prediction": prediction.cpu().numpy(),
        "block": block.number,
        "attack_seed": block.seed,
    }
    for name in names:
        attacked = surrogate if name.startswith(ON_SURROGATE) else model
        attack = attacks.registry.module(name.removeprefix(ON_SURROGATE)).attack
        adversarial = attack(attacked, x, labels, threat, block.seed)
        held = (prediction == labels) & (predict(model, adversarial) == labels)
        columns[name] = held.cpu().numpy()
    return pd.DataFrame(columns)


@torch.no_grad()
def predict(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).argmax(1)
