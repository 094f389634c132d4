"""Per-sample losses as functions of logits: [B,K] in, [B] out. Tensor methods only, so that a method's declaration can
be read without importing torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log p_y."""
    return -logits.log_softmax(1).gather(1, labels[:, None]).squeeze(1)


def kl_divergence(target: Tensor, logits: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(softmax(target/t) || softmax(logits/t)), summed over the classes. Gradients flow into both arguments."""
    log_q = (target / temperature).log_softmax(1)
    log_p = (logits / temperature).log_softmax(1)
    return (log_q.exp() * (log_q - log_p)).sum(1)


def true_class_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """p_y."""
    return logits.softmax(1).gather(1, labels[:, None]).squeeze(1)
