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


class IAD(Method):
    """min w KL(T^t(x) || S^t(x')) + (1-w) KL(S^t(x) || S^t(x')), w = T_y(x')^beta, where x' maximises CE(S(x'), y).

    The teacher is trusted as far as it is right on x', the student itself for the rest (as in RSLAD's Table 1). S(x)
    carries gradient. T sees x', so it must be live. beta and t as in the authors' IAD-I.

    That code differs, and `teacher_weight: one` is its form: t^2 KL(T^t(x) || S^t(x')) + (1-w) KL(S(x) || S(x')), the
    teacher not weighted, the introspection without temperature. It also begins with `begin` = 60 epochs of ARD.
    """

    terms: ClassVar = ("teacher", "introspection")
    beta: float = Field(0.1, ge=0)
    temperature: float = Field(1.0, gt=0)
    begin: int = Field(0, ge=0, description="so many epochs of t^2 KL(T^t(x) || S^t(x')) alone come first")
    teacher_weight: Literal["trust", "one"] = "trust"
    repeat_passes: bool = Field(
        False,
        description="x' and, once introspection began, x go through S twice, as in the authors' code: batch norm's "
        "running statistics see them twice",
    )

    def teachers(self) -> dict[str, TeacherCalls]:
        """Asks one teacher for its cached logits of clean views and for T(x')."""
        return {TEACHER: TeacherCalls(cached=("logits",), live=True)}

    def phases(self) -> tuple[int, ...]:
        """Returns the first epoch and, if `begin` > 0, the first one with introspection."""
        return (1, self.begin + 1) if self.begin else (1,)

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """Returns what the authors' code (ZFancy/IAD, IAD-I) does.

        Its quirks: 60 epochs of ARD first (begin); the teacher's term is not weighted (teacher_weight); batch norm sees
        x' twice and, once introspection began, x twice (repeat_passes); it is in train mode during the attack; the
        uniform start is not clamped; the second milestone sets the rate of the first again (decay). Divergences are
        summed over the classes. `best` is chosen on the test set at every epoch, under 10 steps of 2/255.
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
        """Computes the teacher's term w KL(T^t(x) || S^t(x')) and the introspection (1-w) KL(S^t(x) || S^t(x')).

        In the first `begin` epochs the teacher's term is t^2 KL(T^t(x) || S^t(x')) and the introspection is 0.
        """
        x, t = step.attack(misclassification, step.labels), self.temperature
        adversarial = step.student(x, train=True).logits
        if self.repeat_passes:
            step.student.update_statistics(x)
        teacher = kl_divergence(step.cached().logits, adversarial, t)
        if step.epoch <= self.begin:
            step.student.update_statistics(step.x)
            own = teacher.new_zeros(len(teacher))
            return Term("teacher", t**2 * teacher, divergence=True), Term("introspection", own, divergence=True)
        clean = step.student(step.x, train=True).logits
        if self.repeat_passes:
            step.student.update_statistics(step.x)
        trust = true_class_probability(step.teacher[TEACHER](x).logits, step.labels) ** self.beta
        if self.teacher_weight == "one":
            teacher, own = t**2 * teacher, (1 - trust) * kl_divergence(clean, adversarial)
        else:
            teacher, own = trust * teacher, (1 - trust) * kl_divergence(clean, adversarial, t)
        return Term("teacher", teacher, divergence=True), Term("introspection", own, divergence=True)
