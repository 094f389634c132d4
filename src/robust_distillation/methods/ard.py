"""ARD, adversarially robust distillation (Goldblum et al., AAAI 2020)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from robust_distillation.losses import cross_entropy, kl_divergence
from robust_distillation.methods.contract import (
    TEACHER,
    Method,
    Official,
    TeacherCalls,
    Term,
    TrainingStep,
    misclassification,
)
from robust_distillation.methods.igdm import IGDM, igdm_terms


class ARD(Method):
    """ARD: minimises (1-alpha) CE(S^t(x), y) + alpha t^2 KL(T^t(x) || S^t(x')), where x' maximises CE(S(x'), y).

    S is the student, T the teacher, x a clean image, x' an adversarial image within the threat model around x, y the
    label, CE the cross-entropy, KL the divergence of the softmaxes, t the temperature, and ^t means softmax(logits /
    t). The loss is that of RSLAD's Table 1. The defaults t = 30 and alpha = 1 (no hard labels) are those of the
    authors' code.

    Attributes:
        terms: class constant: the loss terms, `cross_entropy`, `adversarial` and `igdm` (only with that setting).
        alpha: weight of the divergence, in [0, 1].
        temperature: t, above 0.
        tempered_cross_entropy: False: the cross-entropy is CE(S(x), y), without temperature, as in the authors' code.
        igdm: settings of a further term, see `methods.igdm.IGDM`; None: no such term. With it the teacher's network is
            called on adversarial images.
    """

    terms: ClassVar = ("cross_entropy", "adversarial", "igdm")
    alpha: float = Field(1.0, ge=0, le=1)
    temperature: float = Field(30.0, gt=0)
    tempered_cross_entropy: bool = Field(True, description="false: CE(S(x), y), as in the authors' code")
    igdm: IGDM | None = None

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """Returns how the authors' code (goldblum/AdversariallyRobustDistillation) trains.

        `classes`, the number of classes, sets the batch size: 256 for 100 classes, else 128. `architecture` is ignored.
        Quirks of that code: the divergence is averaged over batch and classes, whatever their number (kl_scale); batch
        norm is in train mode during the attack; the uniform start is not clamped; the second milestone sets the same
        learning rate as the first (decay); the cross-entropy, which has weight 0 at alpha = 1, has no temperature. That
        code keeps every epoch and selects none: `best` is chosen by this project's rule, accuracy on the test set under
        PGD of 20 steps of 0.003.

        Returns:
            An Official: `training`, values of the section `training` of an experiment file, such as {"epochs": 200,
            "batch_size": 128}, and `settings`, values of the method's own settings. They are used with `protocol:
            official`.
        """
        return Official(
            training={
                "epochs": 200,
                "batch_size": 256 if classes == 100 else 128,
                "learning_rate": 0.1,
                "weight_decay": 2e-4,
                "milestones": [100, 150],
                "decay": "from_initial",
                "kl_scale": "mean",
                "inner_attack": {
                    "steps": 10,
                    "step_size": 2 / 255,
                    "eps": 8 / 255,
                    "start": "uniform",
                    "mode": "train",
                    "project_start": False,
                },
                "selection": {"by": "pgd_trades"},
            },
            settings={"tempered_cross_entropy": False},
        )

    def teachers(self) -> dict[str, TeacherCalls]:
        """Declares one teacher (role `teacher`), of which the cached logits of clean views are read.

        A clean view is an augmented training image. With the setting `igdm` its network is called on adversarial images
        without gradient, too.
        """
        return {TEACHER: TeacherCalls(cached=("logits",), live=self.igdm is not None)}

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes the terms of the loss on the batch `step`.

        S is the student, T the teacher, x the clean and x' the adversarial images, y the labels, ^t means
        softmax(logits / t) at the temperature t.

        Returns:
            Terms with values [B] that are not reduced: `cross_entropy`, CE(S^t(x), y) of weight 1-alpha, and
            `adversarial`, t^2 KL(T^t(x) || S^t(x')) of weight alpha; with the setting `igdm` its term.
        """
        t, x = self.temperature, step.attack(misclassification, step.targets)
        adversarial = step.student(x, train=True).logits
        matching = igdm_terms(self.igdm, step, x, adversarial)
        clean = step.student(step.x, train=True).logits
        distance = kl_divergence(step.cached().logits, adversarial, t)
        clean = clean / t if self.tempered_cross_entropy else clean
        return (
            Term("cross_entropy", cross_entropy(clean, step.targets), 1 - self.alpha),
            Term("adversarial", t**2 * distance, self.alpha, divergence=True),
            *matching,
        )
