"""The evaluation by which the checkpoint `best` is chosen."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor, nn

from robust_distillation.attacks import pgd_trades
from robust_distillation.attacks.apgd import correct_under_apgd
from robust_distillation.attacks.core import pgd, starting_noise
from robust_distillation.data.dataset import Dataset
from robust_distillation.losses import cross_entropy
from robust_distillation.models.frozen import frozen
from robust_distillation.randomness import derived_seed, generator
from robust_distillation.settings import Selection, ThreatModel

BATCH = 500  # fixed, for a random start depends on who is in the batch


def evaluate_for_selection(
    model: nn.Module,
    data: Dataset,
    threat: ThreatModel,
    selection: Selection,
    seed: int,
    device: torch.device,
    on_batch_end: Callable[[], None] = lambda: None,
) -> tuple[Tensor, Tensor]:
    """Evaluates a model on the images on which the checkpoint `best` is chosen. The same arguments give the same
    result.

    Images are attacked in batches of 500.

    Args:
        model: the network; mode, weights and buffers are unchanged afterwards. It maps images in [0, 1] to logits
            [N,K].
        data: the validation images, or the test images under the official protocol (the settings of a method's released
            code): images uint8 [N,C,H,W] and labels int64 [N], as `data.dataset.load` returns them.
        threat: norm (`linf` or `l2`) and radius `eps` of the attack, `eps` in the pixel range [0,1], such as 8/255.
        selection: the attack, `selection.attack`, and its number of `steps` (used for `apgd` only). `apgd`: APGD on the
            cross-entropy; an image that is misclassified when clean is not attacked and counts as wrong under attack.
            `pgd10` (10 steps of 2/255) and `pgd_trades` (20 steps of 0.003): only the prediction on the attacked image
            counts.
        seed: seed of the random starts.
        device: device of the model.
        on_batch_end: called without arguments after every batch.

    Returns:
        Two bool tensors [N] on `device`, in the order of `data`: correct on the clean image, and correct under attack.

    Raises:
        UserError: `pgd_trades` is used with another norm than `linf`.
    """
    clean, robust_correct = [], []
    for number, part in enumerate(torch.arange(len(data)).split(BATCH)):
        x, labels = data.floats(data.images[part]).to(device), data.labels[part].to(device)
        if selection.attack == "apgd":
            right, robust = correct_under_apgd(model, x, labels, threat, selection.steps, seed)
        else:
            attack = {"pgd10": _pgd10, "pgd_trades": pgd_trades.attack}[selection.attack]
            adversarial = attack(model, x, labels, threat, derived_seed(seed, number))
            with frozen(model), torch.no_grad():
                right, robust = model(x).argmax(1) == labels, model(adversarial).argmax(1) == labels
        clean.append(right)
        robust_correct.append(robust)
        on_batch_end()
    return torch.cat(clean), torch.cat(robust_correct)


def metric_score(selection: Selection, labels: Tensor, clean: Tensor, robust_correct: Tensor) -> float:
    """Computes the score of one epoch if `best` is chosen by another metric than accuracy; the highest score is best.

    Args:
        selection: section `training.selection`; `selection.metric` is the name of the metric, such as `worst_class`.
        labels: true classes, int64 [N].
        clean: bool [N], whether the clean image is classified correctly.
        robust_correct: bool [N], whether the image counts as correct under the attack of `training.selection` (`apgd`,
            `pgd10` or `pgd_trades`).

    Returns:
        The value of the metric on the attacked images as a fraction (0.5 for 50 %), negated if lower values are better.
        Minus infinity if the metric is not defined.
    """
    # Imported by name: only trainings whose step names the metric depend on its code.
    metric = import_module("robust_distillation.metrics").get(selection.by)
    labels, clean, robust_correct = (values.cpu().numpy() for values in (labels, clean, robust_correct))
    predictions = import_module("robust_distillation.metrics.contract").Predictions
    value = float(metric.measure(predictions(labels, clean[None], robust_correct[None]))[0])
    if math.isnan(value):
        return -math.inf
    return value if metric.higher_is_better else -value


def _pgd10(model: nn.Module, x: Tensor, labels: Tensor, threat: ThreatModel, seed: int) -> Tensor:
    """Runs IAD's PGD: 10 steps of 2/255 on the cross-entropy from a uniform start that is not clamped to [0,1]."""
    return pgd(
        model,
        x,
        lambda x, logits, labels: cross_entropy(logits, labels),
        threat,
        steps=10,
        step_size=2 / 255,
        noise=starting_noise(x, threat, "uniform", generator(seed, "pgd10")),
        project_start=False,
        objective_args=(labels,),
    )
