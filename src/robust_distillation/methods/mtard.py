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
    """MTARD: minimises w KL(T_natural(x) || S(x)) + (1-w) KL(T_robust(x') || S(x')), where x' maximises CE(S(x'), y).

    S is the student, x a clean image, x' an adversarial image within the threat model around x, y the label, CE the
    cross-entropy, KL the divergence of the softmaxes. T_natural is a naturally trained teacher, T_robust a robust one.
    The weight w starts at 1/2 and follows the relative losses. Let l be the mean loss of a teacher divided by its value
    in the first optimisation step. In each optimisation step, before the losses are weighted, w moves by the share r of
    the way to l_natural / (l_natural + l_robust). r is proportional to the learning rate.

    Attributes:
        terms: class constant: the loss terms, `natural` and `adversarial`.
        rate: r in the first epoch, in [0, 1].
        log_constant: number added to the teachers' probabilities inside the logarithm: 1e-5 in the authors' code, where
            it changes the relative losses.
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
        """Declares two teachers, which the method calls by the names (roles) `robust` and `natural`.

        `robust` is called on adversarial images without gradient. Of `natural` the cached logits of clean views
        (augmented training images) are read.
        """
        return {"robust": TeacherCalls(live=True), "natural": TeacherCalls(cached=("logits",))}

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """Returns how the authors' code (zhaoshiji123/MTARD) trains.

        `classes` and `architecture` are ignored. Quirks of that code: the divergence is averaged over batch and
        classes, on CIFAR-100 times 10, so on both datasets it is a tenth of the sum over the classes (kl_scale); 1e-5
        inside the logarithm (log_constant); the attack starts from 0.001 N(0,1), which is not clamped. That code keeps
        each evaluated checkpoint; `best` is the one with the highest accuracy under its PGD of 20 steps of 0.003 on the
        test set, at every 20th epoch and from 215 on at every epoch.

        Returns:
            An Official: `training`, values of the section `training` of an experiment file, such as {"epochs": 200,
            "batch_size": 128}, and `settings`, values of the method's own settings. They are used with `protocol:
            official`.
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
        """Builds the module `balance`: the weight between the two terms, and their first values.

        `sizes` and `generator` are ignored.
        """
        from robust_distillation.methods.balance import Balance

        return {"balance": Balance()}

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes the terms of the loss on the batch `step`; moves the weight w in place.

        S is the student, T_natural and T_robust are the teachers, x the clean and x' the adversarial images. w moves by
        the mean losses of this batch, each divided by its value in the first batch, as the class describes.

        Returns:
            Terms with values [B] that are not reduced: `natural`, KL(T_natural(x) || S(x)) of weight w, and
            `adversarial`, KL(T_robust(x') || S(x')) of weight 1-w.
        """
        constant, x = self.log_constant, step.attack(misclassification, step.targets)
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
