"""B-MTARD, balanced multi-teacher adversarial robustness distillation (Zhao, Wang and Wei, TPAMI 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from robust_distillation.losses import TINY, kl_divergence
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


class BMTARD(Method):
    """B-MTARD: minimises w KL(T_natural^b(x) || S(x)) + (1-w) KL(T_robust^a(x') || S(x')), where x' maximises
    CE(S(x'), y).

    S is the student, x a clean image, x' an adversarial image within the threat model around x, y the label, CE the
    cross-entropy, KL the divergence of the softmaxes. T_natural is a naturally trained teacher, T_robust a robust one.
    ^a means softmax(logits / a); the student has no temperature. This is MTARD with two temperatures that balance what
    the teachers know.

    The temperatures a and b start at 1. In each optimisation step, after the losses are computed, the teacher whose
    output on the batch has the higher mean entropy gets a temperature that is lower by u, the other one a temperature
    that is higher by u, within the bounds. A naturally trained teacher is the sharper one, so b rises and a stays at 1.

    The weight w starts at 1/2 and follows the relative losses as in MTARD. Let l be the mean loss of a teacher divided
    by its value in the first optimisation step. In each step, before the losses are weighted, w moves by the share r of
    the way to l_natural / (l_natural + l_robust). Both r and u are proportional to the learning rate.

    Attributes:
        terms: class constant: the loss terms, `natural` and `adversarial`.
        rate: r in the first epoch, in [0, 1]; 0.025 as in the authors' code.
        temperature_rate: u in the first epoch, at least 0; 0.001 as in the authors' code. With 0 the method is MTARD.
        temperature_min: lowest temperature, in (0, 1]; 1 as in the authors' code.
        temperature_max: highest temperature, at least 1; 10 as in the authors' code.
        log_constant: number added to the teachers' probabilities inside the logarithms of divergences and entropies:
            1e-5 in the authors' code, where it changes the relative losses and the entropies.
    """

    terms: ClassVar = ("natural", "adversarial")
    rate: float = Field(0.025, ge=0, le=1, description="r in the first epoch")
    temperature_rate: float = Field(0.001, ge=0, description="change of a temperature in a step of the first epoch")
    temperature_min: float = Field(1.0, gt=0, le=1)
    temperature_max: float = Field(10.0, ge=1)
    log_constant: float = Field(
        0.0,
        ge=0,
        description="added to the teachers' probabilities inside the logarithms of divergences and entropies: 1e-5 in "
        "the authors' code",
    )

    def teachers(self) -> dict[str, TeacherCalls]:
        """Declares two teachers, which the method calls by the names (roles) `robust` and `natural`.

        `robust` is called on adversarial images without gradient. Of `natural` the cached logits of clean views
        (augmented training images) are read.
        """
        return {"robust": TeacherCalls(live=True), "natural": TeacherCalls(cached=("logits",))}

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """Returns how the authors' code (zhaoshiji123/MTARD-extension) trains a ResNet-18 on CIFAR-10.

        `classes` and `architecture` are ignored. The attack is that of the code of MTARD, for its own file is missing.
        There is no script for CIFAR-100: as in MTARD's the divergence is averaged over batch and classes and, on
        CIFAR-100, times 10, so on both datasets it is a tenth of the sum over the classes (kl_scale). Other quirks:
        1e-5 inside the logarithms (log_constant); the attack starts from 0.001 N(0,1), which is not clamped. That code
        compares the entropies by their quotient. This is the same comparison unless a teacher is so sure of every image
        that 1e-5 inside the logarithm makes its entropy negative. `best` has the highest mean of clean accuracy and
        accuracy under PGD of 20 steps of 0.003 on the test set, at every 20th epoch and from 215 on at every epoch.

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
                "selection": {"by": "mean.pgd_trades", "every": 20, "every_epoch_after": 214},
            },
            settings={"log_constant": 1e-5},
        )

    def build(self, sizes: Sizes, generator: torch.Generator) -> dict[str, nn.Module]:
        """Builds the modules `balance`, the weight between the two terms and their first values, and `temperatures`.

        `sizes` and `generator` are ignored.
        """
        import torch

        from robust_distillation.methods.balance import Balance

        temperatures = torch.nn.Module()
        for role in ("robust", "natural"):
            temperatures.register_buffer(role, torch.ones(()))
        return {"balance": Balance(), "temperatures": temperatures}

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes the terms of the loss on the batch `step`; moves the weight w and both temperatures in place.

        S is the student, T_natural and T_robust are the teachers, x the clean and x' the adversarial images, ^a means
        softmax(logits / a). The losses have the temperatures from before this step and the weight w from after it.

        Returns:
            Terms with values [B] that are not reduced: `natural`, KL(T_natural^b(x) || S(x)) of weight w, and
            `adversarial`, KL(T_robust^a(x') || S(x')) of weight 1-w.
        """
        temperatures, constant = step.own["temperatures"], self.log_constant
        x = step.attack(misclassification, step.targets)
        robust = step.teacher["robust"](x).logits / temperatures.robust
        adversarial = kl_divergence(robust, step.student(x, train=True).logits, target_constant=constant)
        target = step.cached("natural").logits / temperatures.natural
        natural = kl_divergence(target, step.student(step.x, train=True).logits, target_constant=constant)
        excess = step.mean(self._entropy(robust)) - step.mean(self._entropy(target))
        change = self.temperature_rate * step.decay * excess.sign()
        temperatures.robust.sub_(change).clamp_(self.temperature_min, self.temperature_max)
        temperatures.natural.add_(change).clamp_(self.temperature_min, self.temperature_max)
        weight = step.own["balance"](step.mean(natural), step.mean(adversarial), self.rate * step.decay)
        return (
            Term("natural", natural, weight, divergence=True),
            Term("adversarial", adversarial, 1 - weight, divergence=True),
        )

    def _entropy(self, logits):
        """Computes the entropy of the softmax of logits [B,K], with `log_constant` inside the logarithm, [B]."""
        p = logits.softmax(1)
        return -(p * (p + self.log_constant).clamp(min=TINY).log()).sum(1)
