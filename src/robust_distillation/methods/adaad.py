"""AdaAD, adaptive adversarial distillation (Huang et al., CVPR 2023)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from robust_distillation.losses import kl_divergence
from robust_distillation.methods.contract import TEACHER, Method, Official, TeacherCalls, Term, TrainingStep


class AdaAD(Method):
    """min alpha KL(T(x') || S(x')) + (1-alpha) KL(T(x) || S(x)), where x' maximises KL(T(x') || S(x')).

    The gradient of the inner maximisation flows through both networks, so the teacher's network is called, not its
    cache. alpha = 1 as in the authors' code.
    """

    terms: ClassVar = ("clean", "adversarial")
    alpha: float = Field(1.0, ge=0, le=1)
    clean_pass: bool = Field(
        False,
        description="x goes through S in train mode even where alpha = 1 gives it no weight, as in the authors' code: "
        "it moves batch norm's running statistics",
    )

    def teachers(self) -> dict[str, TeacherCalls]:
        """Asks one teacher for T(x') with its gradient in x', and for cached logits of clean views if alpha < 1."""
        return {TEACHER: TeacherCalls(cached=("logits",) * (self.alpha < 1), live=True, gradient=True)}

    def needs_labels(self) -> bool:
        """Returns False: both terms compare the student with the teacher."""
        return False

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """Returns what the authors' code (boyellow/AdaAD) does, with the radius of its main command.

        Its quirks: the divergence is averaged over batch and classes for 10 classes, and summed over the classes for
        others (kl_scale); x goes through S, before x', although it has no weight (clean_pass); the attack starts from
        0.001 N(0,1), which is not clamped. `best` is chosen on the test set under 10 steps of 2/255.
        """
        return Official(
            training={
                "epochs": 200,
                "batch_size": 128,
                "learning_rate": 0.1,
                "weight_decay": 5e-4,
                "milestones": [100, 150],
                "kl_scale": "mean" if classes == 10 else "sum",
                "inner_attack": {
                    "steps": 10,
                    "step_size": 2 / 255,
                    "eps": 8 / 255,
                    "start": "gaussian",
                    "project_start": False,
                },
                "selection": {"by": "pgd10"},
            },
            settings={"clean_pass": True},
        )

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes alpha KL(T(x') || S(x')) and, if alpha < 1, (1-alpha) KL(T(x) || S(x))."""
        teacher = step.teacher[TEACHER]
        x = step.attack(lambda x, logits: kl_divergence(teacher(x).logits, logits))
        terms = []
        if self.alpha < 1:
            distance = kl_divergence(step.cached().logits, step.student(step.x, train=True).logits)
            terms = [Term("clean", distance, 1 - self.alpha, divergence=True)]
        elif self.clean_pass:
            step.student.update_statistics(step.x)
        distance = kl_divergence(teacher(x).logits, step.student(x, train=True).logits)
        return (*terms, Term("adversarial", distance, self.alpha, divergence=True))
