"""Natural training: cross-entropy on clean images."""

from __future__ import annotations

from typing import ClassVar

from robust_distillation.losses import cross_entropy
from robust_distillation.methods.contract import Method, Official, Term, TrainingStep


class Natural(Method):
    """min CE(S(x), y)."""

    terms: ClassVar = ("cross_entropy",)

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """Returns RSLAD's schedule: the papers do not publish how their natural students were trained."""
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
        """Computes the cross-entropy on clean images."""
        return (Term("cross_entropy", cross_entropy(step.student(step.x, train=True).logits, step.labels)),)
