"""GACD-style guided adversarial contrastive distillation (after Bai et al., arXiv 2009.09922)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from robust_distillation.losses import cross_entropy, true_class_probability
from robust_distillation.methods.contract import (
    TEACHER,
    Method,
    Sizes,
    TeacherCalls,
    Term,
    TrainingStep,
    misclassification,
)

if TYPE_CHECKING:
    import torch
    from torch import nn


class GACD(Method):
    """GACD-style: min CE(S(x'), y) + beta sum_i w_i L_i / sum_i w_i, where x' maximises CE(S(x'), y).

    L_i is CRD's noise-contrastive loss (Tian et al., ICLR 2020) between the teacher's features of x_i, the anchor, and
    the student's features of x'_i, against a memory bank of images of other classes. w_i = T_y(x_i): what the teacher
    gets wrong guides little ("sample reweighted estimation").

    This is our reading. The paper's abstract names contrastive feature distillation with the teacher as anchor and the
    reweighting of samples; its equations were not available, so critic, negatives, sizes and weights follow CRD's.
    """

    terms: ClassVar = ("cross_entropy", "contrast")
    beta: float = Field(0.8, ge=0)
    dimension: int = Field(128, ge=1, description="of the space that both networks' features are projected into")
    negatives: int = Field(16384, ge=1, description="drawn per sample from the other classes, with replacement")
    temperature: float = Field(0.07, gt=0)
    momentum: float = Field(0.5, ge=0, lt=1, description="of the memory banks")
    reweight: bool = True

    def teachers(self) -> dict[str, TeacherCalls]:
        """Asks one teacher for its cached logits and features of clean views."""
        return {TEACHER: TeacherCalls(cached=("logits", "features"))}

    def build(self, sizes: Sizes, generator: torch.Generator) -> dict[str, nn.Module]:
        """Builds the projection heads and memory banks of the contrast."""
        from robust_distillation.methods.contrast import MemoryContrast

        return {
            "contrast": MemoryContrast(
                sizes, self.dimension, self.negatives, self.temperature, self.momentum, generator
            )
        }

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes CE(S(x'), y), and beta times the contrast, weighted by the teacher's probability of y."""
        teacher = step.cached()
        student = step.student(step.attack(misclassification, step.labels), train=True)
        contrast = step.own["contrast"](student.features, teacher.features, step)
        if self.reweight:
            trust = true_class_probability(teacher.logits, step.labels)
            contrast = trust / step.mean(trust) * contrast
        return (
            Term("cross_entropy", cross_entropy(student.logits, step.labels)),
            Term("contrast", contrast, self.beta),
        )
