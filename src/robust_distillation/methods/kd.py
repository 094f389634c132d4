"""KD, knowledge distillation on clean images (Hinton, Vinyals and Dean, 2015)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from robust_distillation.losses import cross_entropy, kl_divergence
from robust_distillation.methods.contract import TEACHER, Method, TeacherCalls, Term, TrainingStep


class KD(Method):
    """Knowledge distillation: minimises gamma CE(S(x), y) + alpha t^2 KL(T^t(x) || S^t(x)) on clean images.

    S is the student, T the teacher, x a clean image, y its label, CE the cross-entropy, KL the divergence of the
    softmaxes, t the temperature, and ^t means softmax(logits / t). No adversarial images are used. The defaults are
    those with which CRD's authors run KD (RepDistiller, scripts/run_cifar_distill.sh).

    Attributes:
        terms: class constant: the loss terms, `cross_entropy` and `distillation`.
        gamma: weight of the cross-entropy, at least 0.
        alpha: weight of the divergence, at least 0.
        temperature: t, above 0.
    """

    terms: ClassVar = ("cross_entropy", "distillation")
    gamma: float = Field(0.1, ge=0)
    alpha: float = Field(0.9, ge=0)
    temperature: float = Field(4.0, gt=0)

    def teachers(self) -> dict[str, TeacherCalls]:
        """Declares one teacher (role `teacher`), of which the cached logits of clean views are read.

        A clean view is an augmented training image.
        """
        return {TEACHER: TeacherCalls(cached=("logits",))}

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes the terms of the loss on the batch `step`.

        S is the student, T the teacher, x the clean images, y their labels, ^t means softmax(logits / t) at the
        temperature t.

        Returns:
            Terms with values [B] that are not reduced: `cross_entropy`, CE(S(x), y) of weight gamma, and
            `distillation`, t^2 KL(T^t(x) || S^t(x)) of weight alpha.
        """
        t, logits = self.temperature, step.student(step.x, train=True).logits
        distance = kl_divergence(step.cached().logits, logits, t)
        return (
            Term("cross_entropy", cross_entropy(logits, step.targets), self.gamma),
            Term("distillation", t**2 * distance, self.alpha, divergence=True),
        )
