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
    """CRD: minimises gamma CE(S(x), y) + alpha t^2 KL(T^t(x) || S^t(x)) + beta L on clean images.

    S is the student, T the teacher, x a clean image, y its label, CE the cross-entropy, KL the divergence of the
    softmaxes, t is `kd_temperature`, and ^t means softmax(logits / t). L is the noise-contrastive loss between the
    teacher's and the student's features of x against memory banks of images of other classes: see `MemoryContrast`. No
    adversarial images are used. The defaults are those of the authors' script for CRD alone; alpha = 1 is their CRD+KD.
    Their code draws the negatives without replacement if there are enough of them; this one always draws them with
    replacement.

    Attributes:
        terms: class constant: the loss terms, `cross_entropy`, `contrast` and, if alpha > 0, `distillation`.
        gamma: weight of the cross-entropy, at least 0.
        alpha: weight of the divergence, at least 0; with 0 the teacher's logits are not read.
        beta: weight of the contrastive loss, at least 0.
        dimension: width of the space into which the features of both networks are projected.
        negatives: number of images of other classes that are drawn for each image, with replacement.
        temperature: temperature of the contrastive loss, above 0.
        momentum: share of the old projection in an updated row of a memory bank, in [0, 1).
        kd_temperature: t, above 0.
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
        """Declares one teacher (role `teacher`), of which cached outputs on clean views are read.

        They are the features and, if alpha > 0, the logits. A clean view is an augmented training image.
        """
        return {TEACHER: TeacherCalls(cached=("logits", "features") if self.alpha > 0 else ("features",))}

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

        S is the student, T the teacher, x the clean images, y their labels, ^t means softmax(logits / t) at the
        temperature t, and L is the contrastive loss between the features of S and T against memory banks.

        Returns:
            Terms with values [B] that are not reduced: `cross_entropy`, CE(S(x), y) of weight gamma, `contrast`, L of
            weight beta, and, if alpha > 0, `distillation`, t^2 KL(T^t(x) || S^t(x)) of weight alpha.
        """
        student, teacher, t = step.student(step.x, train=True), step.cached(), self.kd_temperature
        contrast = step.own["contrast"](student.features, teacher.features, step)
        terms = [
            Term("cross_entropy", cross_entropy(student.logits, step.targets), self.gamma),
            Term("contrast", contrast, self.beta),
        ]
        if self.alpha > 0:
            distance = t**2 * kl_divergence(teacher.logits, student.logits, t)
            terms.append(Term("distillation", distance, self.alpha, divergence=True))
        return tuple(terms)
