"""IAD, introspective adversarial distillation (Zhu et al., ICLR 2022)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from robust_distillation.losses import cross_entropy, kl_divergence, true_class_probability
from robust_distillation.methods.contract import Batch, Method, Needs, Official, Term


class IAD(Method):
    """min w KL(T^t(x) || S^t(x')) + (1-w) KL(S^t(x) || S^t(x')), w = T_y(x')^beta, where x' maximises CE(S(x'), y).

    The teacher is trusted as far as it is right on x', the student itself for the rest (as in RSLAD's Table 1). S(x)
    carries gradient. T sees x', so it must be live. beta and t as in the authors' IAD-I.

    That code differs, and `teacher_weight: one` is its form: t^2 KL(T^t(x) || S^t(x')) + (1-w) KL(S(x) || S(x')), the
    teacher not weighted, the introspection without temperature. It also begins with `begin` = 60 epochs of ARD.
    """

    needs: ClassVar = Needs(clean=True, adversarial=True, teacher_logits=True, teacher_adversarial=True)
    beta: float = Field(0.1, ge=0)
    temperature: float = Field(1.0, gt=0)
    begin: int = Field(0, ge=0, description="so many epochs of t^2 KL(T^t(x) || S^t(x')) alone come first")
    teacher_weight: Literal["trust", "one"] = "trust"

    fresh_clean: bool = Field(
        False,
        description="x goes through S again for the introspection, as in the authors' code: batch norm sees it twice",
    )

    def passes(self, given: list[str], epoch: int) -> list[str]:
        return [*given, "clean"] if self.fresh_clean and epoch > self.begin else given

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """The authors' code (ZFancy/IAD, IAD-I). Its quirks: 60 epochs of ARD first (begin); the teacher's term is not
        weighted (teacher_weight); batch norm sees x' twice and, once introspection began, x twice (passes,
        fresh_clean); it is in train mode while attacking; the uniform start is not clamped; the second milestone sets
        the rate of the first again (decay). Divergences are summed over the classes. `best` is looked for on the test
        set at every epoch, under 10 steps of 2/255."""
        return Official(
            training={
                "epochs": 200,
                "batch_size": 128,
                "learning_rate": 0.1,
                "weight_decay": 2e-4,
                "milestones": [100, 150],
                "decay": "from_initial",
                "passes": ["adversarial", "adversarial", "clean"],
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
            settings={"begin": 60, "teacher_weight": "one", "fresh_clean": True},
        )

    def inner_objective(self, logits, batch: Batch):
        return cross_entropy(logits, batch.labels)

    def loss_terms(self, batch: Batch, state=None):
        adversarial, t = batch.adversarial.logits, self.temperature
        teacher = kl_divergence(batch.teacher.logits, adversarial, t)
        trust = true_class_probability(batch.teacher_adversarial.logits, batch.labels) ** self.beta
        if batch.epoch <= self.begin:
            teacher, own = t**2 * teacher, teacher.new_zeros(len(teacher))
        elif self.teacher_weight == "one":
            teacher, own = t**2 * teacher, (1 - trust) * kl_divergence(batch.clean.logits, adversarial)
        else:
            teacher, own = trust * teacher, (1 - trust) * kl_divergence(batch.clean.logits, adversarial, t)
        return Term("teacher", teacher, divergence=True), Term("introspection", own, divergence=True)
