"""ARD, adversarially robust distillation (Goldblum et al., AAAI 2020)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from robust_distillation.losses import cross_entropy, kl_divergence
from robust_distillation.methods.contract import Batch, Method, Needs, Term


class ARD(Method):
    """min (1-alpha) CE(S^t(x), y) + alpha t^2 KL(T^t(x) || S^t(x')), where x' maximises CE(S(x'), y).

    As in RSLAD's Table 1; ^t is softmax(./t). The defaults t = 30 and alpha = 1 (no hard labels) are those of the
    authors' code, whose cross-entropy, unused at alpha = 1, has no temperature.
    """

    needs: ClassVar = Needs(clean=True, adversarial=True, teacher_logits=True)
    alpha: float = Field(1.0, ge=0, le=1)
    temperature: float = Field(30.0, gt=0)

    def inner_objective(self, logits, batch: Batch):
        return cross_entropy(logits, batch.labels)

    def loss_terms(self, batch: Batch, state=None):
        t = self.temperature
        distance = kl_divergence(batch.teacher.logits, batch.adversarial.logits, t)
        return (
            Term("cross_entropy", cross_entropy(batch.clean.logits / t, batch.labels), 1 - self.alpha),
            Term("adversarial", t**2 * distance, self.alpha, divergence=True),
        )
