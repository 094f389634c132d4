"""Average of the student's weights over a training (SWA or EMA), by torch.optim.swa_utils."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from robust_distillation.settings import Averaging
from robust_distillation.training.batches import Batch


def build_average(student: nn.Module, settings: Averaging) -> AveragedModel:
    """Makes the average of a network's weights over a training (SWA or EMA), to which no weights are added yet.

    `average.update_parameters(student)` adds the present weights of the student: the first ones are copied.

    Args:
        student: the network. It is copied, so its `features` must still be a method of its class (see
            `models.precision.configure_precision`).
        settings: section `training.averaging` of the experiment file: `name` (`swa` or `ema`), `decay`, `ramp` and
            `batch_norm` (running statistics of the average).

    Returns:
        A torch.optim.swa_utils.AveragedModel. `average.module` is a network like the student, in eval mode and frozen.
        `average.n_averaged` is the number of times that weights were added.
    """

    def update(averages: list[Tensor], values: list[Tensor], added: Tensor) -> None:
        if averages[0].is_floating_point():
            get_ema_multi_avg_fn(_decay(settings, int(added)))(averages, values, added)
        else:  # batch norm's count of batches
            for average, value in zip(averages, values, strict=True):
                average.copy_(value)

    average = AveragedModel(student, multi_avg_fn=update, use_buffers=settings.batch_norm == "average")
    return average.requires_grad_(False).eval()


def _decay(settings: Averaging, n: int) -> float:
    """Returns the factor of the average of `n` weights when the next are added."""
    if settings.name == "swa":
        return n / (n + 1)
    return min(settings.decay, (1 + n) / (10 + n)) if settings.ramp else settings.decay


def reestimate_statistics(model: nn.Module, batches: Iterable[Batch]) -> None:
    """Computes batch norm's running statistics anew from clean training images, in place.

    Each batch counts by its number of images: after batches with n images together, a batch of b images gets the weight
    b / (n + b). So the running mean is the mean over all images. This is how the released codes of Chen et al. (ICLR
    2021) do it. The mode (train or eval) and the momenta of the layers are restored.

    Args:
        model: network with batch norm layers; without any, nothing is done. Weights are not changed.
        batches: the batches of one epoch, as `training.batches.batches` yields them; `x` (float32 [B,C,H,W] in [0, 1])
            is used. If several processes share the training, each passes its own rows. A layer whose statistics are not
            synchronised over the processes then keeps those of its own rows.
    """
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not layers:
        return
    momenta, training, seen = [layer.momentum for layer in layers], model.training, 0
    for layer in layers:
        layer.reset_running_stats()
    model.train()
    with torch.no_grad():
        for batch in batches:
            size = len(batch.ids)
            for layer in layers:
                layer.momentum = size / (seen + size)
            model(batch.x)
            seen += size
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.train(training)
