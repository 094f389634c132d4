"""Transfers a trained network to another dataset: a linear head is trained on its frozen features.

GACD (Bai et al., arXiv 2009.09922) names this analysis. How its head is trained was not available, so the rules here
are this project's.
"""

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

BATCH = 250  # images per forward pass
CONSTANT = 1e-6  # features that vary by less than this fraction of their size count as constant: the rest is rounding


class HeadSettings(Protocol):
    """Settings of the training of a linear head: the fields that `train_head` reads of an object.

    A section under `transfer` in the experiment file has these fields. The head is trained on features that are centred
    and scaled to a standard deviation of at most 1 in every direction. This bounds the curvature of the loss by 1/2 for
    every backbone: full-batch steps are stable for learning rates below 4 (1 + momentum), and a rate between 1 and 5
    suits most backbones.

    Attributes:
        epochs: number of passes over the training images.
        batch_size: images per optimisation step. The last step of an epoch may have fewer.
        learning_rate: rate of the first epoch. It falls towards 0 along a half cosine, once per epoch.
        momentum: momentum of SGD, in [0, 1).
        weight_decay: weight decay of SGD, on the weights and the bias of the head.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float


def train_head(
    model: nn.Module, train: Dataset, validation: Dataset, settings: HeadSettings, seed: int, device: torch.device
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Trains a linear classifier for another dataset on the frozen features of a network.

    This is multinomial logistic regression on the unaugmented images, from zero weights, by SGD with momentum. The
    learning rate falls towards 0 along a half cosine. The head of the last epoch is returned.

    Args:
        model: network on `device`, with a method `features` (images [N,C,H,W] to [N,D]) and a linear layer
            `classifier`. It is in eval mode during the computation; its mode is restored afterwards and its weights
            stay the same.
        train: training split of the other dataset, images uint8 [N,C,H,W] with labels int64 [N], as `data.dataset.load`
            returns it.
        validation: images and labels, in the same form, on which the accuracy is measured after each epoch. It decides
            nothing.
        settings: epochs, batch size, learning rate, momentum and weight decay, for example
            `experiment.file.transfer["parity"]`.
        seed: seed of the order of the training images.
        device: device of the computation.

    Returns:
        A pair. First, a copy of the state dict of `model`, in the form of a checkpoint, in which the head replaces the
        classifier; the head has one output per class of `train`. Second, a list with one dict per epoch: `epoch` (from
        1), `learning_rate`, `loss` (mean cross-entropy), `training_clean` and `validation_clean` (accuracies in [0,1]).

    Raises:
        FloatingPointError: if the loss of an epoch is not finite.
    """
    mean, scale, features = _centred(features_of(model, train, device))
    labels = train.labels.to(device)
    validation_features = (features_of(model, validation, device) - mean) / scale
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
        loss_sum, n_correct = torch.zeros((), device=device), torch.zeros((), device=device)
        for index in epoch_order(seed, epoch, len(train)).to(device).split(settings.batch_size):
            logits = head(features[index])
            losses = cross_entropy(logits, labels[index])
            optimizer.zero_grad(set_to_none=True)
            losses.mean().backward()
            optimizer.step()
            loss_sum += losses.detach().sum()
            n_correct += (logits.argmax(1) == labels[index]).sum()
        line = {"epoch": epoch, "learning_rate": rate, "loss": loss_sum.item() / len(train)}
        if not math.isfinite(line["loss"]):
            raise FloatingPointError(f"the head's loss is {line['loss']} in epoch {epoch}: lower its learning_rate")
        with torch.no_grad():
            correct = head(validation_features).argmax(1).cpu() == validation.labels
        line |= {"training_clean": n_correct.item() / len(train), "validation_clean": correct.float().mean().item()}
        metrics.append(line)
    weight, bias = fold_scaling(head.weight.detach(), head.bias.detach(), mean, scale)
    return _with_head(model, weight, bias), metrics


def features_of(model: nn.Module, data: Dataset, device: torch.device) -> Tensor:
    """Computes the features of all images of a dataset, without augmentation or gradient.

    Args:
        model: network on `device` with a method `features` (images [N,C,H,W] to [N,D]). It is in eval mode during the
            computation; its mode is restored afterwards.
        data: the N images, uint8 [N,C,H,W], as `data.dataset.load` returns them. They are scaled to [0, 1]. The labels
            are not used.
        device: device of the computation.

    Returns:
        Features float32 [N,D] on `device`, in the order of the images.
    """
    with frozen(model), torch.no_grad():
        return torch.cat([model.features(data.floats(images).to(device)) for images in data.images.split(BATCH)])


def fold_scaling(weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Folds the centring and scaling of features into a linear head.

    Args:
        weight: the head's weight [K,D] on the features (f - mean) / scale.
        bias: the head's bias [K].
        mean: mean of the features f, [D].
        scale: the number by which the centred features were divided, a tensor of no dimensions.

    Returns:
        Weight [K,D] and bias [K], float64. On the unscaled features f they give the logits that the arguments give on
        (f - mean) / scale.
    """
    weight = weight.double() / scale.double()
    return weight, bias.double() - weight @ mean.double()


def _centred(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Centres features and scales them to a standard deviation of 1 in the direction in which they vary most.

    All features share one scale. Dividing each by its own deviation would amplify those that hardly vary, and with
    them the noise that an attack can use.

    Returns:
        The mean [D], the scale (a scalar tensor) and the centred and scaled features [N,D].
    """
    exact = features.double()
    mean = exact.mean(0)
    covariance = (exact - mean).T @ (exact - mean) / len(exact)
    scale = torch.linalg.eigvalsh(covariance)[-1].clamp(min=0).sqrt()
    scale = torch.where(scale > CONSTANT * exact.abs().max(), scale, 1.0)
    mean, scale = mean.to(features), scale.to(features)
    return mean, scale, (features - mean) / scale


def _with_head(model: nn.Module, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """Copies the model's state dict, in the form of a checkpoint, with another weight and bias of the classifier."""
    if isinstance(model, Normalised):
        model = model.model
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    for prefix, module in model.named_modules(remove_duplicate=False):
        if module is model.classifier:
            state[f"{prefix}.weight"] = weight.to(state[f"{prefix}.weight"])
            state[f"{prefix}.bias"] = bias.to(state[f"{prefix}.bias"])
    return state
