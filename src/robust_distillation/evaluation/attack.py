"""Attacks the checkpoints of one run, block by block."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from robust_distillation import attacks
from robust_distillation.config import ON_SURROGATE
from robust_distillation.data.dataset import Dataset
from robust_distillation.device import split_on_oom
from robust_distillation.evaluation.blocks import Block
from robust_distillation.files import canonical
from robust_distillation.models.checkpoint import read_checkpoint, weights_digest
from robust_distillation.models.precision import EXACT, SEARCH, loaded
from robust_distillation.resume import Work
from robust_distillation.settings import ThreatModel

log = logging.getLogger(__name__)


def attack_run(
    checkpoints: dict[str, Path],
    data: Dataset,
    todo: list[Block],
    names: list[str],
    threat: ThreatModel,
    device: torch.device,
    surrogate: nn.Module | None = None,
    work: Work | None = None,
    precision: str = EXACT,
    search: str = "fp32",
) -> pd.DataFrame:
    """The outcomes of all `checkpoints` (name to file), attacked once where their weights are equal. Attacks named
    transfer_... are crafted on `surrogate`. search: where it is `bf16`, all others run on the network in bfloat16.
    work: what is done is saved there, an attack on a block at a time."""
    found: dict[str, pd.DataFrame] = {}
    frames = []
    saved = work and work.load()
    done: dict[str, dict[str, list[bool]]] = json.loads(saved) if saved else {}

    def content() -> bytes:
        return canonical(done).encode()

    def save_if_due() -> None:
        if work and work.due():
            work.save(content())

    if work:
        work.at_any_time(content)
    for checkpoint, path in checkpoints.items():
        weights = weights_digest(read_checkpoint(path)[0])
        if weights not in found:
            model = loaded(path, precision, device)
            attacked = loaded(path, precision, device, SEARCH) if search == "bf16" else model
            parts = []
            for block in todo:
                known = done.setdefault(f"{weights} {block.number}", {})
                parts.append(
                    attack_block(model, data, block, names, threat, device, surrogate, known, save_if_due, attacked)
                )
                log.info("%s: attacked images %d to %d, seed %d", checkpoint, block.start, block.stop - 1, block.seed)
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
    known: dict[str, list[bool]] | None = None,
    between: Callable[[], None] = lambda: None,
    searched: nn.Module | None = None,
) -> pd.DataFrame:
    """One row per image: index, label, prediction, block, attack_seed, and per attack whether it held.

    Held means that both the clean and the attacked prediction are right. known: attacks in there are not made again,
    those that are made come in; `between` is called after each of these. searched: where the attacks look for x', the
    model itself in another precision; whether x' holds is asked of `model`.
    """
    known = {} if known is None else known
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
        if name not in known:
            attacked = surrogate if name.startswith(ON_SURROGATE) else searched or model
            attack = attacks.registry.module(name.removeprefix(ON_SURROGATE)).attack
            adversarial = attack(attacked, x, labels, threat, block.seed)
            held = (prediction == labels) & (predict(model, adversarial) == labels)
            known[name] = held.tolist()
            between()
        columns[name] = known[name]
    return pd.DataFrame(columns)


@torch.no_grad()
def predict(model: nn.Module, x: Tensor) -> Tensor:
    """int64 [B]. An attack may not be split where memory runs out, for its noise depends on the batch; this may."""
    return split_on_oom(lambda images: model(images).argmax(1), x)
