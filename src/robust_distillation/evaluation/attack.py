"""Attacks the checkpoints of one run, block by block.

The result is a table of outcomes: one row per image and checkpoint, with one boolean column per attack. The column is
true if the model classifies both the clean and the adversarial image correctly. Further columns hold the predicted
class of each image and the confidence, which is the softmax probability of that class.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from robust_distillation import attacks
from robust_distillation.attacks.augmented import attack_augmented
from robust_distillation.attacks.policy import ModelAugmentation
from robust_distillation.columns import AUGMENTED, CONFIDENCE, ON_SURROGATE, attack_of, confidence_of, prediction_of
from robust_distillation.data.dataset import Dataset
from robust_distillation.device import split_on_oom
from robust_distillation.digests import canonical
from robust_distillation.evaluation.blocks import Block
from robust_distillation.models.checkpoint import read_checkpoint, weights_digest
from robust_distillation.models.precision import EXACT, SEARCH, load_for_inference
from robust_distillation.resume import ResumableJob
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
    work: ResumableJob | None = None,
    precision: str = EXACT,
    search: str = "fp32",
    augmentation: ModelAugmentation | None = None,
) -> pd.DataFrame:
    """Attacks every checkpoint of one run (one training with one seed) or of one teacher and returns the outcomes.

    Checkpoints with equal weights are attacked once.

    Args:
        checkpoints: name of the checkpoint (`best`, `last` or `imported`) to its file, for example `{"best":
            Path("results/digits/teachers/wide/best.safetensors")}`.
        data: the test split, images uint8 [N,C,H,W] with labels int64 [N], as `data.dataset.load` returns it.
        todo: the blocks to attack, at least one, from `evaluation.blocks.blocks`. A block is a range of test images
            that are attacked together as one batch; its `seed` is the seed of the attacks on it.
        names: the attacks, such as `pgd20` or `autoattack`. A name `transfer_ATTACK`, such as `transfer_pgd20`, means
            ATTACK crafted on `surrogate`, another network; `transfer_augmented_ATTACK` the same with `augmentation`.
        threat: norm (`linf` or `l2`) and largest size `eps` of the perturbation, in the unit of pixel values in [0, 1].
        device: device of the computation.
        surrogate: network on `device` on which `transfer_` attacks are crafted. None if there are no such attacks.
        work: the saved progress of this job, a `resume.ResumableJob` that was entered as a context manager. The
            outcomes of each attack on a block are saved with it and not computed again after a restart. None: nothing
            is saved.
        precision: precision of the model that classifies the images: `exact`, `fp32`, `bf16-inner` or `bf16`
            (`compute.precision` of the experiment file). `exact` is eager fp32; all others are fp32 with faster
            kernels.
        search: precision of the model on which attacks are crafted: `fp32`, the same model, or `bf16`, its bfloat16
            version (`evaluation.search` of the experiment file). The adversarial images are always classified by the
            model of `precision`.
        augmentation: the transformed copies of the images over which `transfer_augmented_` attacks average their
            gradients. None if there are no such attacks.

    Returns:
        One row per image and checkpoint, in the order of `checkpoints`, then of `todo`. Columns: `index` (position in
        the test split), `label`, `prediction` (class of the clean image), `block` (number of the block), `attack_seed`
        (seed of the attacks on that block), one bool column per attack (True if the clean and the adversarial image are
        both classified correctly), `confidence` (of the clean prediction), for each attack ATTACK `ATTACK.prediction`
        (class of the adversarial image) and `ATTACK.confidence` (of that prediction), and `checkpoint`. Confidences are
        float32 in [0,1].
    """
    by_weights: dict[str, pd.DataFrame] = {}
    frames = []
    saved = work and work.load()
    finished: dict[str, dict[str, dict[str, list]]] = json.loads(saved) if saved else {}

    def content() -> bytes:
        return canonical(finished).encode()

    def save_if_due() -> None:
        if work and work.should_save():
            work.save(content())

    if work:
        work.set_snapshot(content)
    for checkpoint, path in checkpoints.items():
        weights = weights_digest(read_checkpoint(path)[0])
        if weights not in by_weights:
            model = load_for_inference(path, precision, device)
            search_model = load_for_inference(path, precision, device, SEARCH) if search == "bf16" else model
            parts = []
            for block in todo:
                results = finished.setdefault(f"{weights} {block.number}", {})
                outcomes = attack_block(
                    model, data, block, names, threat, device, surrogate, results, save_if_due, search_model,
                    augmentation,
                )  # fmt: skip
                parts.append(outcomes)
                log.info("%s: attacked images %d to %d, seed %d", checkpoint, block.start, block.stop - 1, block.seed)
            by_weights[weights] = pd.concat(parts, ignore_index=True)
        frames.append(by_weights[weights].assign(checkpoint=checkpoint))
    return pd.concat(frames, ignore_index=True)


def attack_block(
    model: nn.Module,
    data: Dataset,
    block: Block,
    names: Iterable[str],
    threat: ThreatModel,
    device: torch.device,
    surrogate: nn.Module | None = None,
    results: dict[str, dict[str, list]] | None = None,
    on_attack_end: Callable[[], None] = lambda: None,
    search_model: nn.Module | None = None,
    augmentation: ModelAugmentation | None = None,
) -> pd.DataFrame:
    """Attacks one block (test images that are attacked together as one batch) and returns the outcomes.

    An image is robust to an attack if the model classifies both the clean and the adversarial image correctly.

    Args:
        model: network that classifies clean and adversarial images; maps [N,C,H,W] in [0,1] to logits [N,K]. It must be
            on `device` and in eval mode.
        data: the test split, images uint8 [N,C,H,W] with labels int64 [N], as `data.dataset.load` returns it.
        block: positions `start` to `stop` - 1 of the images that are attacked as one batch, and the `seed` of the
            attacks.
        names: the attacks, such as `pgd20`. A name `transfer_ATTACK`, such as `transfer_pgd20`, means ATTACK crafted on
            `surrogate`, another network; `transfer_augmented_ATTACK` the same with `augmentation`.
        threat: norm (`linf` or `l2`) and largest size `eps` of the perturbation, in the unit of pixel values in [0, 1].
        device: device of the computation.
        surrogate: network on which `transfer_` attacks are crafted. None if there are no such attacks.
        results: name of an attack to its outcomes on this block, as lists with one entry per image: `robust_correct`
            (True if the image is robust), `prediction` and `confidence`. Attacks in it are not run; the outcomes of the
            others are added to it. None: all attacks are run.
        on_attack_end: called without arguments after each attack that was run.
        search_model: network on which all attacks but the `transfer_` ones are crafted. None: `model`.
        augmentation: the transformed copies of the images over which `transfer_augmented_` attacks average their
            gradients. None if there are no such attacks.

    Returns:
        One row per image: `index` (position in the test split), `label`, `prediction` (class of the clean image),
        `block` (number of the block), `attack_seed` (seed of the attacks on it), one bool column per attack (True if
        the image is robust to it), `confidence` (of the clean prediction), and for each attack ATTACK
        `ATTACK.prediction` (class of the adversarial image) and `ATTACK.confidence` (of that prediction). Confidences
        are float32 in [0,1].
    """
    results = {} if results is None else results
    part = slice(block.start, block.stop)
    x, labels = data.floats(data.images[part]).to(device), data.labels[part].to(device)
    clean = predict(model, x)
    columns: dict[str, Any] = {
        "index": range(block.start, block.stop),
        "label": labels.cpu().numpy(),
        "prediction": clean.classes.cpu().numpy(),
        "block": block.number,
        "attack_seed": block.seed,
    }
    crafted: dict[str, Tensor] = {}  # x' of attacks that another one may go on from
    for name in names:
        if name not in results:
            attacked_model = surrogate if name.startswith(ON_SURROGATE) else search_model or model
            attack = attacks.registry.module(attack_of(name)).attack
            if name.startswith(AUGMENTED):
                attack = partial(attack_augmented, attack, augmentation=augmentation)
            elif (continued := attacks.continued_by(name)) in crafted:
                attack = partial(attack, start=crafted[continued])
            adversarial = attack(attacked_model, x, labels, threat, block.seed)
            crafted[name] = adversarial
            attacked = predict(model, adversarial)
            results[name] = {
                "robust_correct": ((clean.classes == labels) & (attacked.classes == labels)).tolist(),
                "prediction": attacked.classes.tolist(),
                "confidence": attacked.confidence.tolist(),
            }
            on_attack_end()
        columns[name] = results[name]["robust_correct"]
    columns[CONFIDENCE] = clean.confidence.cpu().numpy()
    for name in names:
        columns[prediction_of(name)] = results[name]["prediction"]
        columns[confidence_of(name)] = np.array(results[name]["confidence"], dtype=np.float32)
    return pd.DataFrame(columns)


class Prediction(NamedTuple):
    """Predictions for N images.

    Attributes:
        classes: int64 [N], the predicted classes.
        confidence: float32 [N] in [0,1], the softmax probability of the predicted class.
    """

    classes: Tensor
    confidence: Tensor


@torch.no_grad()
def predict(model: nn.Module, x: Tensor) -> Prediction:
    """Classifies images, without gradient and in the model's present mode.

    If memory runs out, the batch is split in halves and tried again. Attacks are never split: their noise depends on
    the batch.

    Args:
        model: network that maps images [N,C,H,W] to logits [N,K].
        x: images, float32 [N,C,H,W] in [0,1], on the model's device.

    Returns:
        The predicted classes and their confidence.
    """
    logits = split_on_oom(model, x)
    return Prediction(logits.argmax(1), logits.float().softmax(1).amax(1))
