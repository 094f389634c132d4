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
    """GACD: minimises CE(S(x'), y) + beta sum_i w_i L_i / sum_i w_i, where x' maximises CE(S(x'), y).

    S is the student, x a clean image, x' an adversarial image within the threat model around x, y the label, CE the
    cross-entropy. L_i is CRD's noise-contrastive loss (Tian et al., ICLR 2020) between the teacher's features of x_i,
    the anchor, and the student's features of x'_i, against a memory bank of images of other classes. The weight w_i is
    the teacher's probability of the label of x_i: images that the teacher gets wrong guide little ("sample reweighted
    estimation").

    This is this project's interpretation. The paper's abstract names contrastive feature distillation with the teacher
    as anchor and the reweighting of samples; its equations were not available, so critic, negatives, sizes and weights
    follow CRD's.

    Attributes:
        terms: class constant: the loss terms, `cross_entropy` and `contrast`.
        beta: weight of the contrastive loss, at least 0.
        dimension: width of the space into which the features of both networks are projected.
        negatives: number of images of other classes that are drawn for each image, with replacement.
        temperature: temperature of the contrastive loss, above 0.
        momentum: share of the old projection in an updated row of a memory bank, in [0, 1).
        reweight: False: all w_i are equal.
    """

    terms: ClassVar = ("cross_entropy", "contrast")
    beta: float = Field(0.8, ge=0)
    dimension: int = Field(128, ge=1, description="of the space that both networks' features are projected into")
    negatives: int = Field(16384, ge=1, description="drawn per sample from the other classes, with replacement")
    temperature: float = Field(0.07, gt=0)
    momentum: float = Field(0.5, ge=0, lt=1, description="of the memory banks")
    reweight: bool = True

    def teachers(self) -> dict[str, TeacherCalls]:
        """Declares one teacher (role `teacher`), of which the cached logits and features of clean views are read.

        A clean view is an augmented training image.
        """
        return {TEACHER: TeacherCalls(cached=("logits", "features"))}

    def build(self, sizes: Sizes, generator: torch.Generator) -> dict[str, nn.Module]:
        """Builds the module `contrast`: projection heads and memory banks.

        Their shapes follow from `sizes`, their random values from `generator`.
        """
        from robust_distillation.methods.contrast import MemoryContrast

        return {
            "contrast": MemoryContrast(
                sizes, self.dimension, self.negatives, self.temperature, self.momentum, generator
            )
        }

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes the terms of the loss on the batch `step`; updates the memory banks in place.

        S is the student, x' the adversarial images, y their labels. The contrastive loss compares the features of S on
        x' with those of the teacher on the clean images, against memory banks.

        Returns:
            Terms with values [B] that are not reduced: `cross_entropy`, CE(S(x'), y), and `contrast`, the reweighted
            contrastive loss of weight beta.
        """
        teacher = step.cached()
        student = step.student(step.attack(misclassification, step.targets), train=True)
        contrast = step.own["contrast"](student.features, teacher.features, step)
        if self.reweight:
            trust = true_class_probability(teacher.logits, step.labels)
            contrast = trust / step.mean(trust) * contrast
        return (
            Term("cross_entropy", cross_entropy(student.logits, step.targets)),
            Term("contrast", contrast, self.beta),
        )
