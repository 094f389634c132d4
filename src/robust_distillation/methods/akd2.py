"""AKD2, adversarial training with two teachers against robust overfitting (Chen et al., ICLR 2021)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from robust_distillation.losses import cross_entropy, kl_divergence
from robust_distillation.methods.contract import Method, Official, TeacherCalls, Term, TrainingStep, misclassification
from robust_distillation.settings import mistake


class AKD2(Method):
    """AKD2: minimises (1-p-q) CE(S(x'), y) + p t^2 KL(T_robust^t(x') || S^t(x')) + q t^2 KL(T_natural^t(x') ||
    S^t(x')), where x' maximises CE(S(x'), y).

    S is the student, x a clean image, x' an adversarial image within the threat model around x, y the label, CE the
    cross-entropy, KL the divergence of the softmaxes, t the temperature, and ^t means softmax(logits / t). T_robust is
    a robust teacher, T_natural a naturally trained one. Both see x', so that nothing of them can be cached.

    The paper trains teachers of the student's architecture by the same adversarial and standard training. It also
    averages the weights, which here is `training.averaging`. The defaults are those of the code of IAD (Zhu et al.,
    ICLR 2022), which calls this method AKD2. The code of Chen et al. has p = 0.6, q = 0.1 and t = 2.

    Attributes:
        terms: class constant: the loss terms, `cross_entropy`, `robust` and `natural`.
        robust_weight: p, weight of the robust teacher's divergence, in [0, 1].
        natural_weight: q, weight of the natural teacher's divergence, in [0, 1]. p + q is at most 1.
        temperature: t, above 0.
    """

    terms: ClassVar = ("cross_entropy", "robust", "natural")
    robust_weight: float = Field(0.5, ge=0, le=1)
    natural_weight: float = Field(0.25, ge=0, le=1)
    temperature: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _weights_leave_something_for_the_labels(self) -> AKD2:
        if self.robust_weight + self.natural_weight > 1:
            raise mistake("robust_weight and natural_weight are more than 1 together")
        return self

    def teachers(self) -> dict[str, TeacherCalls]:
        """Declares two teachers, which the method calls by the names (roles) `robust` and `natural`.

        Both are called on adversarial images without gradient.
        """
        return {"robust": TeacherCalls(live=True), "natural": TeacherCalls(live=True)}

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """Returns how AKD2.py in the code of IAD (ZFancy/IAD) trains; it has the method as a baseline.

        `classes` and `architecture` are ignored. Quirks of that code: batch norm is in train mode during the attack;
        the uniform start is not clamped; the second milestone sets the same learning rate as the first (decay).
        Divergences are summed over the classes. `best` is chosen on the test set at every epoch, under PGD of 10 steps
        of 2/255. The code of Chen et al. (VITA-Group/Alleviate-Robust-Overfitting) differs: other weights, weight decay
        5e-4, milestones 50 and 150, a clamped start, averaged weights from epoch 56 on, and a validation split.

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

        S is the student, T_robust and T_natural are the teachers, x' the adversarial images, y the labels, ^t means
        softmax(logits / t) at the temperature t.

        Returns:
            Terms with values [B] that are not reduced: `cross_entropy`, CE(S(x'), y) of weight 1-p-q, `robust`, t^2
            KL(T_robust^t(x') || S^t(x')) of weight p, and `natural`, t^2 KL(T_natural^t(x') || S^t(x')) of weight q.
        """
        x, t = step.attack(misclassification, step.targets), self.temperature
        logits = step.student(x, train=True).logits
        robust, natural = (
            t**2 * kl_divergence(step.teacher[role](x).logits, logits, t) for role in ("robust", "natural")
        )
        rest = 1 - self.robust_weight - self.natural_weight
        return (
            Term("cross_entropy", cross_entropy(logits, step.targets), rest),
            Term("robust", robust, self.robust_weight, divergence=True),
            Term("natural", natural, self.natural_weight, divergence=True),
        )
