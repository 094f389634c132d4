"""GACD-style guided adversarial contrastive distillation (after Bai et al., arXiv 2009.09922)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

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
    """GACD-style: minimises CE(S(x'), y) + beta T_y(x) NCE(T(x), S(x')), where x' maximises CE(S(x'), y).

    S is the student, T the teacher, x a clean image, x' an adversarial image within the threat model around x, y the
    label, CE the cross-entropy. NCE is the noise-contrastive loss of CRD (Tian et al., ICLR 2020) on projected
    features, with the teacher's feature of x as the anchor: the student's feature of an image of the same class must be
    closer to it than those of images of other classes, which a memory bank holds (see `MemoryContrast`). Its weight
    T_y(x) is the teacher's probability of the label, so that images which the teacher gets wrong guide little ("sample
    reweighted estimation").

    The paper's text could not be read. What is known of it comes from its abstract, the figure on the home page of one
    author, and a note (cnblogs, MTandHJ, 13772062) that restates equations and quotes sentences. Each default below
    follows them:
    - The figure and the equations have the teacher's feature as the only anchor, and features of length 1. The pairs
      are the teacher's feature with the student's feature of the image, and with the student's features of other
      images (`sides`).
    - "we sample negatives from different classes rather than different instances, when picking up a positive sample
      from the same class" (`positive`; the figure pictures the image itself).
    - The weight multiplies both parts of the loss of an image, positive and negatives. It is not divided by a mean
      (`normalise_weights`).
    - The weight is motivated by the low clean accuracy of an adversarially trained teacher, so the teacher sees clean
      images (`teacher_sees`). The figure and the equations have one image for both networks and do not say which. If
      the student sees x', they speak for `adversarial`.

    Attributes:
        terms: class constant: the loss terms, `cross_entropy` and `contrast`.
        beta: weight of the contrastive loss, at least 0; CRD's.
        dimension: width of the space into which the features of both networks are projected; CRD's.
        negatives: number of images of other classes that are drawn for each image, with replacement; CRD's.
        temperature: temperature of the contrastive loss, above 0; CRD's.
        momentum: share of the old projection in an updated row of a memory bank, in [0, 1); CRD's.
        reweight: False: the weight is 1 instead of T_y(x).
        normalise_weights: True: the weight is divided by its mean over the batch.
        positive: `class`: the positive of an image is a random image of its class, which may be the image itself.
            `instance`: the image itself.
        sides: `teacher_anchor`: the student's features of this batch are the positives, with gradient, and its memory
            bank holds the negatives. `class` then draws the positive from the batch. `both`: as in CRD's code, the sum
            of two losses, with the anchor of one network and positives and negatives from the bank of the other one.
            Only the one with the student's anchor has a gradient in the student.
        teacher_sees: the images of which the teacher's features and probabilities are taken: `clean`, from the cache,
            or `adversarial`, x', by calls of the teacher's network.

    Unknown:
        - Temperature, number of negatives, width of the projection and momentum of the memory bank.
        - Whether there is a cross-entropy, and its weight.
        - How x' is made, and which of the two networks sees it.
        - Whether a memory bank holds the negatives, and whether scores are divided by a normaliser as in CRD's code;
          the restated probability of a pair, e^(t.s/temperature) / (e^(t.s/temperature) + K/M) for K negatives and M
          training images, has none.
        - Where the positive of the same class is drawn: from the training images, or from the batch as here.
        - Epochs, learning rate and all results.
    """

    terms: ClassVar = ("cross_entropy", "contrast")
    beta: float = Field(0.8, ge=0)
    dimension: int = Field(128, ge=1, description="of the space that both networks' features are projected into")
    negatives: int = Field(16384, ge=1, description="drawn per sample from the other classes, with replacement")
    temperature: float = Field(0.07, gt=0)
    momentum: float = Field(0.5, ge=0, lt=1, description="of the memory banks")
    reweight: bool = True
    normalise_weights: bool = Field(False, description="the weights of the samples are divided by their batch mean")
    positive: Literal["instance", "class"] = "class"
    sides: Literal["both", "teacher_anchor"] = "teacher_anchor"
    teacher_sees: Literal["clean", "adversarial"] = "clean"

    def teachers(self) -> dict[str, TeacherCalls]:
        """Declares one teacher (role `teacher`), of which the cached logits and features of clean views are read.

        A clean view is an augmented training image. With `teacher_sees: adversarial` the teacher is called on
        adversarial images instead, without gradient.
        """
        if self.teacher_sees == "adversarial":
            return {TEACHER: TeacherCalls(live=True)}
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

        S is the student, T the teacher, x the clean and x' the adversarial images, y their labels. The contrastive loss
        compares the features of S on x' with those of T on x or, with `teacher_sees: adversarial`, on x'.

        Returns:
            Terms with values [B] that are not reduced: `cross_entropy`, CE(S(x'), y), and `contrast`, the reweighted
            contrastive loss of weight beta.
        """
        x = step.attack(misclassification, step.targets)
        teacher = step.cached() if self.teacher_sees == "clean" else step.teacher[TEACHER](x)
        student = step.student(x, train=True)
        contrast = step.own["contrast"](student.features, teacher.features, step, self.positive, self.sides)
        if self.reweight:
            trust = true_class_probability(teacher.logits, step.labels)
            contrast = (trust / step.mean(trust) if self.normalise_weights else trust) * contrast
        return (
            Term("cross_entropy", cross_entropy(student.logits, step.targets)),
            Term("contrast", contrast, self.beta),
        )
