"""Natural training: cross-entropy on clean images."""

from __future__ import annotations

from typing import ClassVar

from robust_distillation.losses import cross_entropy
from robust_distillation.methods.contract import Method, Official, Term, TrainingStep


class Natural(Method):
    """Natural training: minimises the cross-entropy CE(S(x), y) of the student S on clean images x with labels y.

    Attributes:
        terms: class constant: the only loss term, `cross_entropy`.
    """

    terms: ClassVar = ("cross_entropy",)

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """Returns the schedule of RSLAD's released code.

        The papers do not publish how their natural students were trained. `classes` and `architecture` are ignored.

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
                "inner_attack": {"step_size": 2 / 255},
                "selection": {"by": "pgd_trades", "every": 20, "every_epoch_after": 214},
            }
        )

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes the terms of the loss on the batch `step`.

        S is the student, x the clean images, y their labels.

        Returns:
            Terms with values [B] that are not reduced: `cross_entropy`, CE(S(x), y).
        """
        return (Term("cross_entropy", cross_entropy(step.student(step.x, train=True).logits, step.targets)),)
