"""Losses per sample: functions of logits [B,K] with values [B].

They use tensor methods only, so that a method's module can be read without importing torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

TINY = 1e-38  # lower bound of q inside the logarithm: float32 still represents it, and its logarithm is -87.5


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Computes the cross-entropy of each sample with a label, -log p_y, or with probabilities q, -sum_k q_k log p_k.

    p is softmax(logits).

    Args:
        logits: float [B,K], for B samples and K classes.
        target: true classes y, int64 [B], or probabilities q, float [B,K].

    Returns:
        [B], not averaged.
    """
    if target.is_floating_point():
        return -(target * logits.log_softmax(1)).sum(1)
    return -logits.log_softmax(1).gather(1, target[:, None]).squeeze(1)


def kl_divergence(
    target: Tensor,
    logits: Tensor,
    temperature: float = 1.0,
    *,
    target_constant: float = 0.0,
    constant: float = 0.0,
) -> Tensor:
    """Computes KL(q || p) of each sample, with q = softmax(target / temperature) and p = softmax(logits / temperature).

    The gradient flows into both arguments. Value and gradient stay finite if a probability underflows to 0. log q is
    the logarithm of the softmax, as in the released codes: log_softmax differs in the last bits, which can change the
    sign of a gradient.

    Args:
        target: logits [B,K] of q, for example the teacher's.
        logits: logits [B,K] of p, for example the student's.
        temperature: positive divisor of both logits. The result is not multiplied by temperature^2.
        target_constant: number added to q inside its logarithm, as some released codes do; 0 adds nothing.
        constant: number added to p inside its logarithm, as some released codes do; 0 adds nothing.

    Returns:
        [B], summed over the classes and not averaged over the batch.
    """
    q, logits = (target / temperature).softmax(1), logits / temperature
    log_q = (q + target_constant if target_constant else q.clamp(min=TINY)).log()
    log_p = (logits.softmax(1) + constant).log() if constant else logits.log_softmax(1)
    return (q * (log_q - log_p)).sum(1)


def true_class_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """Computes the softmax probability of the label of each sample.

    Args:
        logits: float [B,K], for B samples and K classes.
        labels: true classes, int64 [B].

    Returns:
        [B] in [0, 1].
    """
    return logits.softmax(1).gather(1, labels[:, None]).squeeze(1)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Computes the largest logit of a wrong class minus the logit of the label: max_{k != y} z_k - z_y.

    A positive value means a wrong prediction. This is -f_6 of Carlini and Wagner (S&P 2017) without the confidence
    kappa.

    Args:
        logits: z, float [B,K], for B samples and K classes.
        labels: true classes y, int64 [B].

    Returns:
        [B].
    """
    label = labels[:, None]
    return logits.scatter(1, label, float("-inf")).amax(1) - logits.gather(1, label).squeeze(1)
