"""CIARD-style, cyclic iterative adversarial robustness distillation (after Lu et al., ICCV 2025)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from robust_distillation.losses import TINY, cross_entropy, kl_divergence
from robust_distillation.methods.contract import (
    Method,
    Official,
    Sizes,
    TeacherCalls,
    Term,
    TrainingStep,
    misclassification,
)
from robust_distillation.settings import Optimizer, Schedule

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from robust_distillation.settings import Training


class CIARD(Method):
    """CIARD-style: minimises KL(T_robust^a(x') || S(x')) + KL(T_natural^b(x) || S(x)) - w KL(T_natural(x') || S^c(x'))
    and, for T_robust, CE(T_robust(x'), y), where x' maximises CE(S(x'), y).

    S is the student, x a clean image, x' an adversarial image within the threat model around x, y the label, CE the
    cross-entropy, KL the divergence of the softmaxes, and ^a means softmax(logits / a). T_natural is a naturally
    trained teacher. T_robust is a robust one, of which a copy in train mode is trained along: after the first `begin`
    epochs, by SGD of its own on x'. No gradient flows from the student's losses into it.

    The third loss, the push, is the mean over those x' that T_natural classifies wrongly, and 0 if there are none. Its
    weight w is 10^n: it gives the push the order of magnitude (the integer part of the decimal logarithm) of the
    smaller of the two other losses, all summed over the classes.

    The temperatures a and b start at 1. In each optimisation step, after the losses are computed, the teacher whose
    output has the higher mean entropy gets a temperature that is lower by u, the other one a temperature that is higher
    by u, within [1, 10], as in B-MTARD. The learning rate of T_robust is constant for `begin` epochs and then falls
    along a half cosine to 0.

    Attributes:
        terms: class constant: the loss terms, `natural`, `adversarial`, `push`, and `teacher` (after `begin` epochs).
        begin: number of first epochs in which T_robust is not trained, at least 0; 50 as in the authors' code.
        teacher_learning_rate: learning rate of T_robust, above 0; 1e-4 as in the authors' code.
        teacher_momentum: momentum of its SGD, in [0, 1); 0.1 as in the authors' code.
        teacher_weight_decay: its weight decay, at least 0; 2e-4 as in the authors' code.
        push: c, temperature of the student in the push, above 0; 5 as in the authors' code.
        temperature_rate: u, at least 0; 0.001 as in the authors' code. With 0, a and b stay 1.
        weights: weights of the first two losses: `one`, or `balanced`, those of MTARD, whose sum is 1.
        rate: share r by which the weights of `balanced` move in an optimisation step, in [0, 1]; see MTARD. 0.025 as in
            the authors' code.
        rates_until: None: u and r are proportional to the learning rate. A number: they are constant up to this epoch
            and 0 after it. 214 is nearly what the authors' code does.
        clean_pass: True: clean images also go through T_robust in train mode, before x', as in the authors' code. This
            moves its running statistics, which the training does not use.
        log_constant: number added to the teachers' probabilities inside the logarithms of divergences and entropies:
            1e-5 in the authors' code.

    Unknown:
        - The equations are those of the released code. Those of the paper were not read.
        - Two versions of that code are public. In the older one the first two losses have MTARD's weights; in the newer
          one these are overwritten by 1. Which one made the paper's numbers is not known.
        - The code has one script, for MobileNetV2 on CIFAR-10: settings for other students and datasets are not known.
    """

    terms: ClassVar = ("natural", "adversarial", "push", "teacher")
    begin: int = Field(50, ge=0, description="so many epochs without training of the robust teacher come first")
    teacher_learning_rate: float = Field(1e-4, gt=0)
    teacher_momentum: float = Field(0.1, ge=0, lt=1)
    teacher_weight_decay: float = Field(2e-4, ge=0)
    push: float = Field(5.0, gt=0, description="temperature of the student in the push")
    temperature_rate: float = Field(0.001, ge=0, description="change of the teachers' temperatures in a step")
    weights: Literal["one", "balanced"] = "one"
    rate: float = Field(0.025, ge=0, le=1, description="of the weights `balanced`, as in MTARD")
    rates_until: int | None = Field(
        None,
        ge=1,
        description="last epoch in which temperatures and weights move, at constant rates; null: their rates are "
        "proportional to the learning rate",
    )
    clean_pass: bool = Field(
        False, description="x goes through the robust teacher too: it moves its running statistics alone"
    )
    log_constant: float = Field(
        0.0, ge=0, description="added to the teachers' probabilities inside the logarithms: 1e-5 in the authors' code"
    )

    def teachers(self) -> dict[str, TeacherCalls]:
        """Declares two teachers, which the method calls by the names (roles) `robust` and `natural`.

        A copy of `robust` is trained. Of `natural` the cached logits of clean views (augmented training images) are
        read, and it is called on adversarial images without gradient.
        """
        return {"robust": TeacherCalls(trained=True), "natural": TeacherCalls(cached=("logits",), live=True)}

    def phases(self) -> tuple[int, ...]:
        """Returns the first epoch and, if `begin` > 0, the first one in which the teacher is trained."""
        return (1, self.begin + 1) if self.begin else (1,)

    def optimisation(self, training: Training) -> dict[str, Training]:
        """Returns the settings of SGD for the robust teacher: `training` with its learning rate, momentum, weight decay
        and schedule.
        """
        part = self.begin / training.epochs
        schedule = Schedule(name="cosine", per="epoch")
        if 0 < part < 1:
            schedule = Schedule(name="cyclic", per="epoch", start=1.0, peak=part, end=0.0)
        own = {
            "optimizer": Optimizer(),
            "learning_rate": self.teacher_learning_rate,
            "momentum": self.teacher_momentum,
            "weight_decay": self.teacher_weight_decay,
            "milestones": [],
            "schedule": schedule,
        }
        return {"robust": training.model_copy(update=own)}

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """Returns how the authors' code (eminentgu/CIARD) trains a MobileNetV2 on CIFAR-10.

        `classes` and `architecture` are ignored. Quirks of that code: the divergence is averaged over batch and 10
        classes (kl_scale); 1e-5 inside the logarithms (log_constant); clean images go through the robust teacher
        (clean_pass); the attack starts from 0.001 N(0,1), which is not clamped. The rate of the temperatures is to fall
        at the epochs 215, 260 and 285, but is multiplied by 0.1 in each optimisation step of them, so that it is 0 from
        the first steps of epoch 215 on (rates_until). The weights of the losses are computed and then set to 1
        (weights). The first batch must have an image that the natural teacher classifies wrongly, or the code stops.

        The learning rate is 0.1 up to epoch 150 and then falls along a half cosine (schedule). In that code it also has
        the factor exp(-0.01 u^2), where u rises from 0 to 1 from epoch 150 to the last one; the same holds for the
        teacher's. These factors are left out: they change a rate by at most 0.13 % of its first value. `best` has the
        highest mean of clean accuracy and accuracy under PGD of 20 steps of 0.003 on the test set, at every 10th epoch
        and from 250 on at every epoch; that code also evaluates epoch 1.

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
                "schedule": {"name": "cyclic", "per": "epoch", "start": 1.0, "peak": 0.5, "end": 0.0},
                "kl_scale": "tenth",
                "inner_attack": {
                    "steps": 10,
                    "step_size": 2 / 255,
                    "eps": 8 / 255,
                    "start": "gaussian",
                    "project_start": False,
                },
                "selection": {"by": "mean.pgd_trades", "every": 10, "every_epoch_after": 249},
            },
            settings={"rates_until": 214, "clean_pass": True, "log_constant": 1e-5},
        )

    def build(self, sizes: Sizes, generator: torch.Generator) -> dict[str, nn.Module]:
        """Builds the modules `temperatures` and, for `weights: balanced`, `balance`.

        `sizes` and `generator` are ignored.
        """
        import torch

        from robust_distillation.methods.balance import Balance

        temperatures = torch.nn.Module()
        for role in ("robust", "natural"):
            temperatures.register_buffer(role, torch.ones(()))
        return {"temperatures": temperatures} | ({"balance": Balance()} if self.weights == "balanced" else {})

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes the terms of the loss on the batch `step`; moves the temperatures, and the weights of `balanced`.

        S is the student, T_natural and T_robust are the teachers, x the clean and x' the adversarial images, ^a means
        softmax(logits / a). The losses have the temperatures from before this step and the weights from after it.

        Returns:
            Terms with values [B] that are not reduced: `natural`, KL(T_natural^b(x) || S(x)), `adversarial`,
            KL(T_robust^a(x') || S(x')), `push`, KL(T_natural(x') || S^c(x')) of weight -w, and, after `begin` epochs,
            `teacher`, CE(T_robust(x'), y).
        """
        import torch

        constant, temperatures = self.log_constant, step.own["temperatures"]
        clean = step.student(step.x, train=True).logits
        if self.clean_pass:
            step.own["robust"].update_statistics(step.x)
        x = step.attack(misclassification, step.targets)
        student = step.student(x, train=True).logits
        with torch.set_grad_enabled(step.epoch > self.begin):
            robust = step.own["robust"](x, train=True).logits
        wrongly = step.teacher["natural"](x).logits

        soft, target = robust.detach() / temperatures.robust, step.cached("natural").logits / temperatures.natural
        adversarial = kl_divergence(soft, student, target_constant=constant)
        natural = kl_divergence(target, clean, target_constant=constant)
        means = [step.mean(values.detach()) for values in (natural, adversarial)]
        excess = step.mean(self._entropy(soft)) - step.mean(self._entropy(target))
        change = self._rate(self.temperature_rate, step) * excess.sign()
        temperatures.robust.sub_(change).clamp_(1, 10)
        temperatures.natural.add_(change).clamp_(1, 10)
        weight, other = 1.0, 1.0
        if self.weights == "balanced":
            weight = step.own["balance"](*means, self._rate(self.rate, step))
            other = 1 - weight

        wrong = (wrongly.argmax(1) != step.labels).to(student.dtype)
        push = wrong * kl_divergence(wrongly, student / self.push, target_constant=constant)
        push = push / step.mean(wrong).clamp(min=1e-6)  # of the wrong ones alone
        magnitudes = [value.clamp(min=1e-7).log10().floor() for value in (*means, step.mean(push.detach()))]
        terms = (
            Term("natural", natural, weight, divergence=True),
            Term("adversarial", adversarial, other, divergence=True),
            Term("push", push, -(10 ** (magnitudes[0].minimum(magnitudes[1]) - magnitudes[2])), divergence=True),
        )
        return (*terms, Term("teacher", cross_entropy(robust, step.targets))) if step.epoch > self.begin else terms

    def _rate(self, rate: float, step: TrainingStep) -> float:
        if self.rates_until is None:
            return rate * step.decay
        return rate if step.epoch <= self.rates_until else 0.0

    def _entropy(self, logits: Tensor) -> Tensor:
        """Computes the entropy of the softmax of logits [B,K], with `log_constant` inside the logarithm, [B]."""
        p = logits.softmax(1)
        return -(p * (p + self.log_constant).clamp(min=TINY).log()).sum(1)
