"""CRD, contrastive representation distillation on clean images (Tian, Krishnan and Isola, ICLR 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from robust_distillation.losses import cross_entropy, kl_divergence
from robust_distillation.methods.contract import TEACHER, Method, Sizes, TeacherCalls, Term, TrainingStep

if TYPE_CHECKING:
    import torch
    from torch import nn


class CRD(Method):
    """min gamma CE(S(x), y) + alpha t^2 KL(T^t(x) || S^t(x)) + beta L, where t is `kd_temperature`.

    L is the noise-contrastive loss between the teacher's and the student's features of x against memory banks of images
    of other classes: see `MemoryContrast`. No adversarial images. Defaults as in the authors' script for CRD alone;
    alpha = 1 is their CRD+KD. Their code draws the negatives without replacement where there are enough of them, we
    always with replacement.
    """

    terms: ClassVar = ("cross_entropy", "contrast", "distillation")
    gamma: float = Field(1.0, ge=0)
    alpha: float = Field(0.0, ge=0)
    beta: float = Field(0.8, ge=0)
    dimension: int = Field(128, ge=1, description="of the space that both networks' features are projected into")
    negatives: int = Field(16384, ge=1, description="drawn per sample from the other classes, with replacement")
    temperature: float = Field(0.07, gt=0, description="of the contrast")
    momentum: float = Field(0.5, ge=0, lt=1, description="of the memory banks")
    kd_temperature: float = Field(4.0, gt=0)

    def teachers(self) -> dict[str, TeacherCalls]:
        """Asks one teacher for its cached features of clean views, and for its logits if alpha > 0."""
        return {TEACHER: TeacherCalls(cached=("logits", "features") if self.alpha > 0 else ("features",))}

    def build(self, sizes: Sizes, generator: torch.Generator) -> dict[str, nn.Module]:
        """Builds the projection heads and memory banks of the contrast."""
        from robust_distillation.methods.contrast import MemoryContrast

        return {
            "contrast": MemoryContrast(
                sizes, self.dimension, self.negatives, self.temperature, self.momentum, generator
            )
        }

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes gamma CE(S(x), y), beta L and, if alpha > 0, alpha t^2 KL(T^t(x) || S^t(x))."""
        student, teacher, t = step.student(step.x, train=True), step.cached(), self.kd_temperature
        contrast = step.own["contrast"](student.features, teacher.features, step)
        terms = [
            Term("cross_entropy", cross_entropy(student.logits, step.labels), self.gamma),
            Term("contrast", contrast, self.beta),
        ]
        if self.alpha > 0:
            distance = t**2 * kl_divergence(teacher.logits, student.logits, t)
            terms.append(Term("distillation", distance, self.alpha, divergence=True))
        return tuple(terms)
