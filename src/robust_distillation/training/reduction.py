"""Reduction of named per-sample loss terms to the one number that is minimised."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from robust_distillation.methods import Term


def reduce(terms: Iterable[Term], classes: int, kl_scale: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Reduces named loss terms to the loss that is minimised: the sum over the terms of weight x mean over the batch.

    A term that is a divergence over the classes is also divided by a factor that `kl_scale` decides.

    Args:
        terms: the terms, each with unreduced values [B], as a method's `loss` returns them.
        classes: number K of classes.
        kl_scale: divisor of the terms with `divergence=True`. `sum`: 1, the divergence summed over the classes, as it
            is defined. `mean`: K, which also averages over the classes, as ARD's KLDivLoss does; the term then has 1/K
            of the weight against the other terms. `tenth`: 10, as in RSLAD's code for any number of classes.

    Returns:
        The loss, a differentiable tensor of no dimensions, and the detached batch mean of each term by name. The means
        include the divisor but not the term's weight. Without terms the loss is 0.0 and the dict is empty.

    Raises:
        KeyError: `kl_scale` is none of the three.
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
