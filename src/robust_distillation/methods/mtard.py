"""MTARD, multi-teacher adversarial robustness distillation (Zhao et al., ECCV 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from robust_distillation.losses import kl_divergence
from robust_distillation.methods.contract import (
    Method,
    Official,
    Sizes,
    TeacherCalls,
    Term,
    TrainingStep,
    misclassification,
)

if TYPE_CHECKING:
    import torch
    from torch import nn


class MTARD(Method):
    """min w KL(T_natural(x) || S(x)) + (1-w) KL(T_robust(x') || S(x')), where x' maximises CE(S(x'), y).

    One teacher is naturally trained, the other robust. w starts at 1/2 and follows the relative losses: with l the loss
    of a teacher over its value in the first step, w moves by the rate r towards l_natural / (l_natural + l_robust)
    before each step is weighted. r falls with the learning rate.
    """

    terms: ClassVar = ("natural", "adversarial")
    rate: float = Field(0.025, ge=0, le=1, description="r in the first epoch")
    log_constant: float = Field(
        0.0,
        ge=0,
        description="added to the target's probabilities inside the logarithm: 1e-5 in the authors' code, where it "
        "moves the relative losses",
    )

    def teachers(self) -> dict[str, TeacherCalls]:
        """Asks the robust teacher for T(x') and the natural one for its cached logits of clean views."""
        return {"robust": TeacherCalls(live=True), "natural": TeacherCalls(cached=("logits",))}

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """Returns what the authors' code (zhaoshiji123/MTARD) does.

        Its quirks: the divergence is averaged over batch and classes, on CIFAR-100 times 10, so on both a tenth of its
        sum (kl_scale); 1e-5 inside the logarithm (log_constant); the attack starts from 0.001 N(0,1), which is not
        clamped. It keeps each evaluated checkpoint; `best` is the one with the highest accuracy under its PGD of 20
        steps of 0.003 on the test set, at every 20th epoch and from 215 on at every one.
        """
        return Official(
            training={
                "epochs": 300,
                "batch_size": 128,
                "learning_rate": 0.1,
                "weight_decay": 2e-4,
                "milestones": [215, 260, 285],
                "kl_scale": "tenth",
                "inner_attack": {
                    "steps": 10,
                    "step_size": 2 / 255,
                    "eps": 8 / 255,
                    "start": "gaussian",
                    "project_start": False,
                },
                "selection": {"by": "pgd_trades", "every": 20, "every_epoch_after": 214},
            },
            settings={"log_constant": 1e-5},
        )

    def build(self, sizes: Sizes, generator: torch.Generator) -> dict[str, nn.Module]:
        """Builds the weight between the two terms, with the first value of each."""
        from robust_distillation.methods.balance import Balance

        return {"balance": Balance()}

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes both divergences, moves w by their relative values, and weights them by w and 1-w."""
        constant, x = self.log_constant, step.attack(misclassification, step.labels)
        adversarial = kl_divergence(
            step.teacher["robust"](x).logits, step.student(x, train=True).logits, target_constant=constant
        )
        natural = kl_divergence(
            step.cached("natural").logits, step.student(step.x, train=True).logits, target_constant=constant
        )
        weight = step.own["balance"](step.mean(natural), step.mean(adversarial), self.rate * step.decay)
        return (
            Term("natural", natural, weight, divergence=True),
            Term("adversarial", adversarial, 1 - weight, divergence=True),
        )
