"""Transfer across tasks: the backbone of a trained network stays as it is, and a linear head is trained on another
dataset. The analysis is named by GACD (Bai et al., arXiv 2009.09922); how the head is trained there was not available,
so the rules are ours."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from robust_distillation.data.dataset import Dataset
from robust_distillation.data.views import epoch_order
from robust_distillation.losses import cross_entropy
from robust_distillation.models.frozen import frozen
from robust_distillation.models.normalised import Normalised

BATCH = 250
CONSTANT = 1e-6  # features that vary by less than this share of their size only show rounding


class HeadSettings(Protocol):
    """The head's budget. It sees features with a standard deviation of at most 1 in every direction, which bounds the
    curvature of the loss by 1/2 whatever the backbone: full-batch steps are stable for learning rates below
    4 (1 + momentum), and one between 1 and 5 suits most."""

    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float  # acts on the head of the centred and scaled features, its bias included


def train_head(
    model: nn.Module, train: Dataset, validation: Dataset, settings: HeadSettings, seed: int, device: torch.device
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """A linear head on `model.features` of the unaugmented images of `train`: the state dict of the same architecture
    with as many classes as `train` has, as checkpoints hold it, and one line of metrics per epoch (loss; accuracies as
    fractions).

    Multinomial logistic regression from zero weights by SGD with momentum, the learning rate falling to 0 along a
    half cosine; the last epoch is what counts, `validation` is only reported. `seed` gives the order of the images.
    The backbone is in eval mode and returns unchanged, as does `model`. Raises FloatingPointError if the loss is not
    finite.
    """
    mean, scale, features = _centred(features_of(model, train, device))
    labels = train.labels.to(device)
    seen = (features_of(model, validation, device) - mean) / scale
    head = nn.Linear(features.shape[1], len(train.info.classes)).to(device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.SGD(
        head.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    metrics = []
    for epoch in range(1, settings.epochs + 1):
        rate = settings.learning_rate * (1 + math.cos(math.pi * (epoch - 1) / settings.epochs)) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate
        total, right = torch.zeros((), device=device), torch.zeros((), device=device)
        for index in epoch_order(seed, epoch, len(train)).to(device).split(settings.batch_size):
            logits = head(features[index])
            losses = cross_entropy(logits, labels[index])
            optimizer.zero_grad(set_to_none=True)
            losses.mean().backward()
            optimizer.step()
            total += losses.detach().sum()
            right += (logits.argmax(1) == labels[index]).sum()
        line = {"epoch": epoch, "learning_rate": rate, "loss": total.item() / len(train)}
        if not math.isfinite(line["loss"]):
            raise FloatingPointError(f"the head's loss is {line['loss']} in epoch {epoch}: lower its learning_rate")
        with torch.no_grad():
            known = head(seen).argmax(1).cpu() == validation.labels
        line |= {"training_clean": right.item() / len(train), "validation_clean": known.float().mean().item()}
        metrics.append(line)
    return _with_head(model, *folded(head.weight.detach(), head.bias.detach(), mean, scale)), metrics


def features_of(model: nn.Module, data: Dataset, device: torch.device) -> Tensor:
    """The features [N,D] of all images, in eval mode."""
    with frozen(model), torch.no_grad():
        return torch.cat([model.features(data.floats(images).to(device)) for images in data.images.split(BATCH)])


def folded(weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Weight [K,D] and bias [K], float64, whose logits on features f are those of the given on (f - mean) / scale."""
    weight = weight.double() / scale.double()
    return weight, bias.double() - weight @ mean.double()


def _centred(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [D], scale, and the features centred and divided by it: their standard deviation is 1 in the direction in
    which they vary most.

    One scale for all: to divide each feature by its own deviation would lift those that hardly vary, and with them the
    noise that an attack can use.
    """
    exact = features.double()
    mean = exact.mean(0)
    covariance = (exact - mean).T @ (exact - mean) / len(exact)
    scale = torch.linalg.eigvalsh(covariance)[-1].clamp(min=0).sqrt()
    scale = torch.where(scale > CONSTANT * exact.abs().max(), scale, 1.0)
    mean, scale = mean.to(features), scale.to(features)
    return mean, scale, (features - mean) / scale


def _with_head(model: nn.Module, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """A copy of the model's state, as a checkpoint holds it, in which its classifier, whatever its name there, has this
    weight and bias."""
    if isinstance(model, Normalised):
        model = model.model
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    for prefix, module in model.named_modules(remove_duplicate=False):
        if module is model.classifier:
            state[f"{prefix}.weight"] = weight.to(state[f"{prefix}.weight"])
            state[f"{prefix}.bias"] = bias.to(state[f"{prefix}.bias"])
    return state
