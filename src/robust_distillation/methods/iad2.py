"""IAD-II, introspective adversarial distillation with two teachers (Zhu et al., ICLR 2022)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from robust_distillation.losses import cross_entropy, kl_divergence, true_class_probability
from robust_distillation.methods.contract import Method, Official, TeacherCalls, Term, TrainingStep, misclassification
from robust_distillation.settings import mistake


class IAD2(Method):
    """IAD-II: minimises (1-p-q) CE(S(x'), y) + p t^2 [w KL(T_robust^t(x') || S^t(x')) + (1-w) KL(S(x) || S(x'))] +
    q t^2 KL(T_natural^t(x') || S^t(x')), where x' maximises CE(S(x'), y).

    S is the student, x a clean image, x' an adversarial image within the threat model around x, y the label, CE the
    cross-entropy, KL the divergence of the softmaxes, t the temperature, and ^t means softmax(logits / t). T_robust is
    a robust teacher, T_natural a naturally trained one. Both see x', so that nothing of them can be cached.

    The weight w = T_robust_y(x')^beta is a power of the robust teacher's probability of y: this teacher counts as far
    as it is right on x', the student's own clean prediction counts for the rest (introspection). S(x) carries gradient.
    The introspection has no temperature, but the factor t^2. With w = 1 the method is AKD2. The loss and all defaults
    are those of the authors' code.

    Attributes:
        terms: class constant: the loss terms, `cross_entropy`, `robust`, `introspection` and `natural`.
        robust_weight: p, weight of the robust teacher and of the introspection, in [0, 1].
        natural_weight: q, weight of the natural teacher's divergence, in [0, 1]. p + q is at most 1.
        temperature: t, above 0.
        beta: exponent of the weight w, at least 0.
        begin: number of first epochs without introspection, in which w is 1.
    """

    terms: ClassVar = ("cross_entropy", "robust", "introspection", "natural")
    robust_weight: float = Field(0.5, ge=0, le=1)
    natural_weight: float = Field(0.25, ge=0, le=1)
    temperature: float = Field(1.0, gt=0)
    beta: float = Field(0.1, ge=0)
    begin: int = Field(0, ge=0, description="so many epochs without introspection come first")

    @model_validator(mode="after")
    def _weights_leave_something_for_the_labels(self) -> IAD2:
        if self.robust_weight + self.natural_weight > 1:
            raise mistake("robust_weight and natural_weight are more than 1 together")
        return self

    def teachers(self) -> dict[str, TeacherCalls]:
        """Declares two teachers, which the method calls by the names (roles) `robust` and `natural`.

        Both are called on adversarial images without gradient.
        """
        return {"robust": TeacherCalls(live=True), "natural": TeacherCalls(live=True)}

    def phases(self) -> tuple[int, ...]:
        """Returns the first epoch and, if `begin` > 0, the first epoch with introspection: (1,) or (1, begin + 1)."""
        return (1, self.begin + 1) if self.begin else (1,)

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """Returns how the authors' code (ZFancy/IAD, IAD-II.py) trains.

        `classes` and `architecture` are ignored. Quirks of that code: batch norm is in train mode during the attack;
        the uniform start is not clamped; the second milestone sets the same learning rate as the first (decay).
        Divergences are summed over the classes. `best` is chosen on the test set at every epoch, under PGD of 10 steps
        of 2/255. Introspection begins in the first epoch. Earlier versions of that file begin after 40 epochs (`begin:
        40`), but define one of their arguments twice and do not run.

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
            }
        )

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes the terms of the loss on the batch `step`.

        S is the student, T_robust and T_natural are the teachers, x the clean and x' the adversarial images, y the
        labels, ^t means softmax(logits / t) at the temperature t, and w = T_robust_y(x')^beta is a power of the robust
        teacher's probability of the label.

        Returns:
            Terms with values [B] that are not reduced: `cross_entropy`, CE(S(x'), y) of weight 1-p-q, `robust`, w t^2
            KL(T_robust^t(x') || S^t(x')) of weight p, `introspection`, (1-w) t^2 KL(S(x) || S(x')) of weight p, and
            `natural`, t^2 KL(T_natural^t(x') || S^t(x')) of weight q. In the first `begin` epochs w is 1,
            `introspection` is 0, and x does not go through S.
        """
        x, t = step.attack(misclassification, step.targets), self.temperature
        adversarial = step.student(x, train=True).logits
        targets = {role: step.teacher[role](x).logits for role in ("robust", "natural")}
        robust, natural = (t**2 * kl_divergence(target, adversarial, t) for target in targets.values())
        own = robust.new_zeros(len(robust))
        if step.epoch > self.begin:
            trust = true_class_probability(targets["robust"], step.labels) ** self.beta
            clean = step.student(step.x, train=True).logits
            robust, own = trust * robust, t**2 * (1 - trust) * kl_divergence(clean, adversarial)
        rest = 1 - self.robust_weight - self.natural_weight
        return (
            Term("cross_entropy", cross_entropy(adversarial, step.targets), rest),
            Term("robust", robust, self.robust_weight, divergence=True),
            Term("introspection", own, self.robust_weight, divergence=True),
            Term("natural", natural, self.natural_weight, divergence=True),
        )
