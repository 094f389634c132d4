"""CRD, contrastive representation distillation on clean images (Tian, Krishnan and Isola, ICLR 2020)."""

from __future__ import annotations

from pydantic import Field

from robust_distillation.losses import cross_entropy, kl_divergence
from robust_distillation.methods.contract import Batch, Method, Needs, Sizes, Term


class CRD(Method):
    """min gamma CE(S(x), y) + alpha t^2 KL(T^t(x) || S^t(x)) + beta L, where t is `kd_temperature`.

    L is the noise-contrastive loss between the teacher's and the student's features of x against memory banks of images
    of other classes: see `MemoryContrast`. No adversarial images. Defaults as in the authors' script for CRD alone;
    alpha = 1 is their CRD+KD. Their code draws the negatives without replacement where there are enough of them, we
    always with replacement.
    """

    gamma: float = Field(1.0, ge=0)
    alpha: float = Field(0.0, ge=0)
    beta: float = Field(0.8, ge=0)
    dimension: int = Field(128, ge=1, description="of the space that both networks' features are projected into")
    negatives: int = Field(16384, ge=1, description="drawn per sample from the other classes, with replacement")
    temperature: float = Field(0.07, gt=0, description="of the contrast")
    momentum: float = Field(0.5, ge=0, lt=1, description="of the memory banks")
    kd_temperature: float = Field(4.0, gt=0)

    @property
    def needs(self) -> Needs:
        return Needs(clean=True, teacher_logits=self.alpha > 0, teacher_features=True)

    def build_state(self, sizes: Sizes, generator):
        from robust_distillation.methods.contrast import MemoryContrast

        return MemoryContrast(sizes, self.dimension, self.negatives, self.temperature, self.momentum, generator)

    def loss_terms(self, batch: Batch, state=None):
        student, teacher, t = batch.clean, batch.teacher, self.kd_temperature
        contrast = state(student.features, teacher.features, batch.index, batch.labels, batch.generator)
        terms = [
            Term("cross_entropy", cross_entropy(student.logits, batch.labels), self.gamma),
            Term("contrast", contrast, self.beta),
        ]
        if self.alpha > 0:
            distance = t**2 * kl_divergence(teacher.logits, student.logits, t)
            terms.append(Term("distillation", distance, self.alpha, divergence=True))
        return tuple(terms)
