"""Per-sample losses as functions of logits: [B,K] in, [B] out. Tensor methods only, so that a method's declaration can
be read without importing torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

TINY = 1e-38  # still a normal number of float32


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

    The constants are those that some released codes add to q and to p inside the logarithms. q and its logarithm are
    those of softmax, as in the released codes: log_softmax differs in the last bits, which can turn the sign of a
    gradient. Value and gradients stay finite where a probability underflows to 0.
    """
    q, logits = (target / temperature).softmax(1), logits / temperature
    log_q = (q + target_constant if target_constant else q.clamp(min=TINY)).log()
    log_p = (logits.softmax(1) + constant).log() if constant else logits.log_softmax(1)
    return (q * (log_q - log_p)).sum(1)


def true_class_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """p_y."""
    return logits.softmax(1).gather(1, labels[:, None]).squeeze(1)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """max_{k != y} z_k - z_y: positive where another class wins (Carlini and Wagner, S&P 2017, f_6 with the sign
    turned and no confidence)."""
    own = labels[:, None]
    return logits.scatter(1, own, float("-inf")).amax(1) - logits.gather(1, own).squeeze(1)
