"""Per-sample losses as functions of logits: [B,K] in, [B] out. Tensor methods only, so that a method's declaration can
be read without importing torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log p_y."""
    return -logits.log_softmax(1).gather(1, labels[:, None]).squeeze(1)


def kl_divergence(
    target: Tensor,
    logits: Tensor,
    temperature: float = 1.0,
    *,
    target_constant: float = 0.0,
    constant: float = 0.0,
) -> Tensor:
    """KL(q || p) with q = softmax(target/t), p = softmax(logits/t), summed over the classes. Gradients flow into both.

    The constants are those that some released codes add to q and to p inside the logarithms. Without them these are
    log_softmax, so value and gradients stay finite where a probability underflows to 0. q itself is softmax as in the
    released codes: exp(log_softmax) differs in the last bit, which can turn the sign of a gradient.
    """
    target, logits = target / temperature, logits / temperature
    return (target.softmax(1) * (_log(target, target_constant) - _log(logits, constant))).sum(1)


def _log(logits: Tensor, constant: float) -> Tensor:
    return (logits.softmax(1) + constant).log() if constant else logits.log_softmax(1)


def true_class_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """p_y."""
    return logits.softmax(1).gather(1, labels[:, None]).squeeze(1)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """max_{k != y} z_k - z_y: positive where another class wins (Carlini and Wagner, S&P 2017, f_6 with the sign
    turned and no confidence)."""
    own = labels[:, None]
    return logits.scatter(1, own, float("-inf")).amax(1) - logits.gather(1, own).squeeze(1)
