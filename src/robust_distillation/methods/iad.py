"""IAD, introspective adversarial distillation (Zhu et al., ICLR 2022)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from robust_distillation.losses import cross_entropy, kl_divergence, true_class_probability
from robust_distillation.methods.contract import Batch, Method, Needs, Term


class IAD(Method):
    """min w KL(T^t(x) || S^t(x')) + (1-w) KL(S^t(x) || S^t(x')), w = T_y(x')^beta, where x' maximises CE(S(x'), y).

    The teacher is trusted as far as it is right on x', the student itself for the rest (as in RSLAD's Table 1).
    T sees x', so it must be live. Defaults as in the authors' IAD-I.
    """

    needs: ClassVar = Needs(clean=True, adversarial=True, teacher_logits=True, teacher_adversarial=True)
    beta: float = Field(0.1, ge=0)
    temperature: float = Field(1.0, gt=0)

    def inner_objective(self, logits, batch: Batch):
        return cross_entropy(logits, batch.labels)

    def loss_terms(self, batch: Batch, state=None):
        adversarial, t = batch.adversarial.logits, self.temperature
        trust = true_class_probability(batch.teacher_adversarial.logits, batch.labels) ** self.beta
        return (
            Term("teacher", trust * kl_divergence(batch.teacher.logits, adversarial, t), divergence=True),
            Term("introspection", (1 - trust) * kl_divergence(batch.clean.logits, adversarial, t), divergence=True),
        )
