"""TRADES (Zhang et al., ICML 2019)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from robust_distillation.losses import cross_entropy, kl_divergence
from robust_distillation.methods.contract import Batch, Method, Needs, Official, Term


class TRADES(Method):
    """min CE(S(x), y) + beta KL(S(x) || S(x')), where x' maximises that divergence.

    S(x) in the divergence carries gradient: detaching it is a known way to lose robustness.
    """

    needs: ClassVar = Needs(clean=True, adversarial=True, reference=True)
    beta: float = Field(6.0, ge=0)

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """The authors' code (yaodongyu/TRADES), for CIFAR-10. Its quirks: eps is 0.031 and the step 0.007; S(x) is
        computed again for the divergence, so that batch norm sees x twice (passes); the attack starts from 0.001
        N(0,1), which is not clamped; the rate falls at the start of epoch 75, that is after 74. It selects no
        checkpoint: `best` is ours, by the papers' PGD on the test set."""
        return Official(
            training={
                "epochs": 76,
                "batch_size": 128,
                "learning_rate": 0.1,
                "weight_decay": 2e-4,
                "milestones": [74],
                "passes": ["clean", "adversarial", "clean"],
                "inner_attack": {
                    "steps": 10,
                    "step_size": 0.007,
                    "eps": 0.031,
                    "start": "gaussian",
                    "project_start": False,
                },
                "selection": {"by": "pgd_trades"},
            }
        )

    def inner_objective(self, logits, batch: Batch):
        return kl_divergence(batch.reference.logits, logits)

    def loss_terms(self, batch: Batch, state=None):
        clean, adversarial = batch.clean.logits, batch.adversarial.logits
        return (
            Term("cross_entropy", cross_entropy(clean, batch.labels)),
            Term("divergence", kl_divergence(clean, adversarial), self.beta, divergence=True),
        )
