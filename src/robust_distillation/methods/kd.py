"""KD, knowledge distillation on clean images (Hinton, Vinyals and Dean, 2015)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from robust_distillation.losses import cross_entropy, kl_divergence
from robust_distillation.methods.contract import TEACHER, Method, TeacherCalls, Term, TrainingStep


class KD(Method):
    """min gamma CE(S(x), y) + alpha t^2 KL(T^t(x) || S^t(x)), where ^t is softmax(./t). No adversarial images.

    The defaults are those with which CRD's authors run KD (RepDistiller, scripts/run_cifar_distill.sh).
    """

    terms: ClassVar = ("cross_entropy", "distillation")
    gamma: float = Field(0.1, ge=0)
    alpha: float = Field(0.9, ge=0)
    temperature: float = Field(4.0, gt=0)

    def teachers(self) -> dict[str, TeacherCalls]:
        """Asks one teacher for its cached logits of clean views."""
        return {TEACHER: TeacherCalls(cached=("logits",))}

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes gamma CE(S(x), y) and alpha t^2 KL(T^t(x) || S^t(x))."""
        t, logits = self.temperature, step.student(step.x, train=True).logits
        distance = kl_divergence(step.cached().logits, logits, t)
        return (
            Term("cross_entropy", cross_entropy(logits, step.labels), self.gamma),
            Term("distillation", t**2 * distance, self.alpha, divergence=True),
        )
