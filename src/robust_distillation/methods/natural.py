"""Natural training: cross-entropy on clean images."""

from __future__ import annotations

from typing import ClassVar

from robust_distillation.losses import cross_entropy
from robust_distillation.methods.contract import Batch, Method, Needs, Official, Term


class Natural(Method):
    """min CE(S(x), y)."""

    needs: ClassVar = Needs(clean=True)

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """How the papers' natural students were trained is not published: RSLAD's schedule, for want of better."""
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

    def loss_terms(self, batch: Batch, state=None):
        return (Term("cross_entropy", cross_entropy(batch.clean.logits, batch.labels)),)
