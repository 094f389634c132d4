"""IAD, introspective adversarial distillation (Zhu et al., ICLR 2022)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from robust_distillation.losses import kl_divergence, true_class_probability
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


class IAD(Method):
    """IAD: minimises w KL(T^t(x) || S^t(x')) + (1-w) KL(S^t(x) || S^t(x')), where x' maximises CE(S(x'), y).

    S is the student, T the teacher, x a clean image, x' an adversarial image within the threat model around x, y the
    label, CE the cross-entropy, KL the divergence of the softmaxes, t the temperature, and ^t means softmax(logits /
    t). The weight w = T_y(x')^beta is a power of the teacher's probability of y on x': the teacher counts as far as it
    is right on x', the student's own clean prediction counts for the rest (introspection, as in RSLAD's Table 1). S(x)
    carries gradient. beta and t are those of the authors' IAD-I.

    The authors' code has another loss, which `teacher_weight: one` selects: t^2 KL(T^t(x) || S^t(x')) + (1-w) KL(S(x)
    || S(x')). There the teacher is not weighted and the introspection has no temperature. That code also begins with 60
    epochs of the teacher's term alone (`begin`).

    Attributes:
        terms: class constant: the loss terms, `teacher`, `introspection` and `igdm` (only with that setting).
        beta: exponent of the weight w, at least 0.
        temperature: t, above 0.
        begin: number of first epochs in which the loss is t^2 KL(T^t(x) || S^t(x')) alone.
        teacher_weight: `trust`: the loss of the first line. `one`: the loss of the authors' code.
        repeat_passes: True: x' and, after the first `begin` epochs, x go through S twice, as in the authors' code, so
            that batch norm's running statistics see them twice.
        igdm: settings of a further term, see `methods.igdm.IGDM`; None: no such term. It is there in the first `begin`
            epochs, too.
    """

    terms: ClassVar = ("teacher", "introspection", "igdm")
    beta: float = Field(0.1, ge=0)
    temperature: float = Field(1.0, gt=0)
    begin: int = Field(0, ge=0, description="so many epochs of t^2 KL(T^t(x) || S^t(x')) alone come first")
    teacher_weight: Literal["trust", "one"] = "trust"
    repeat_passes: bool = Field(
        False,
        description="x' and, once introspection began, x go through S twice, as in the authors' code: batch norm's "
        "running statistics see them twice",
    )
    igdm: IGDM | None = None

    def teachers(self) -> dict[str, TeacherCalls]:
        """Declares one teacher (role `teacher`), which is called on adversarial images without gradient.

        Its cached logits of clean views (augmented training images) are read too.
        """
        return {TEACHER: TeacherCalls(cached=("logits",), live=True)}

    def phases(self) -> tuple[int, ...]:
        """Returns the first epoch and, if `begin` > 0, the first epoch with introspection: (1,) or (1, begin + 1)."""
        return (1, self.begin + 1) if self.begin else (1,)

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """Returns how the authors' code (ZFancy/IAD, IAD-I) trains.

        `classes` and `architecture` are ignored. Quirks of that code: 60 epochs of ARD first (begin); the teacher's
        term is not weighted (teacher_weight); batch norm sees adversarial images twice and, after these epochs, clean
        images twice (repeat_passes); it is in train mode during the attack; the uniform start is not clamped; the
        second milestone sets the same learning rate as the first (decay). Divergences are summed over the classes.
        `best` is chosen on the test set at every epoch, under PGD of 10 steps of 2/255.

        Returns:
            An Official: `training`, values of the section `training` of an experiment file, such as {"epochs": 200,
            "batch_size": 128}, and `settings`, values of the method's own settings. They are used with `protocol:
            official`.
        """
        return Official(
            training={
                "epochs": 200,
                "batch_size": 128,
                "learning_rate": 0.1,
                "weight_decay": 2e-4,
                "milestones": [100, 150],
                "decay": "from_initial",
                "inner_attack": {
                    "steps": 10,
                    "step_size": 2 / 255,
                    "eps": 8 / 255,
                    "start": "uniform",
                    "mode": "train",
                    "project_start": False,
                },
                "selection": {"by": "pgd10"},
            },
            settings={"begin": 60, "teacher_weight": "one", "repeat_passes": True},
        )

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes the terms of the loss on the batch `step`.

        S is the student, T the teacher, x the clean and x' the adversarial images, ^t means softmax(logits / t) at the
        temperature t, and w = T_y(x')^beta is a power of the teacher's probability of the label.

        Returns:
            Terms with values [B] that are not reduced: `teacher`, w KL(T^t(x) || S^t(x')), and `introspection`, (1-w)
            KL(S^t(x) || S^t(x')), or their forms for `teacher_weight: one`. In the first `begin` epochs `teacher` is
            t^2 KL(T^t(x) || S^t(x')) and `introspection` is 0; x then goes through S for batch norm's running
            statistics only. With the setting `igdm` its term comes last.
        """
        x, t = step.attack(misclassification, step.targets), self.temperature
        adversarial = step.student(x, train=True).logits
        target = step.cached().logits
        guide = step.teacher[TEACHER](x).logits if self.igdm or step.epoch > self.begin else None
        matching = igdm_terms(self.igdm, step, x, adversarial, guide)
        if self.repeat_passes:
            step.student.update_statistics(x)
        teacher = kl_divergence(target, adversarial, t)
        if step.epoch <= self.begin:
            step.student.update_statistics(step.x)
            own = teacher.new_zeros(len(teacher))
            teacher = t**2 * teacher
            return Term("teacher", teacher, divergence=True), Term("introspection", own, divergence=True), *matching
        clean = step.student(step.x, train=True).logits
        if self.repeat_passes:
            step.student.update_statistics(step.x)
        trust = true_class_probability(guide, step.labels) ** self.beta
        if self.teacher_weight == "one":
            teacher, own = t**2 * teacher, (1 - trust) * kl_divergence(clean, adversarial)
        else:
            teacher, own = trust * teacher, (1 - trust) * kl_divergence(clean, adversarial, t)
        return Term("teacher", teacher, divergence=True), Term("introspection", own, divergence=True), *matching
