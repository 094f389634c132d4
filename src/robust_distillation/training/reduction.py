"""Reduction of named per-sample loss terms to the one number that is minimised."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from robust_distillation.methods import Term


def reduce(terms: Iterable[Term], classes: int, kl_scale: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the loss, and each term's batch mean before weighting.

    Args:
        terms: the terms that a method's `loss` returned.
        classes: number of classes.
        kl_scale: reduction of a divergence over the classes. `sum`: the sum, as in its definition. `mean`: the mean
            over them too (torch.mean over batch and classes, ARD's KLDivLoss); it then weighs 1/classes as much against
            the other terms and against the weight decay. `tenth`: a tenth of the sum, as in RSLAD's code: the mean over
            batch and 10 classes, and for 100 classes that mean times 10.

    Returns:
        The loss, differentiable, and the detached means by the term's name, for the training curves.
    """
    scale = {"sum": 1, "mean": classes, "tenth": 10}[kl_scale]
    means: dict[str, Tensor] = {}
    loss: Tensor | float = 0.0
    for term in terms:
        mean = term.values.mean()
        if term.divergence:
            mean = mean / scale
        means[term.name] = mean.detach()
        loss = loss + term.weight * mean
    return loss, means
