"""TRADES (Zhang et al., ICML 2019)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from robust_distillation.losses import cross_entropy, kl_divergence
from robust_distillation.methods.contract import Method, Official, Term, TrainingStep


class TRADES(Method):
    """min CE(S(x), y) + beta KL(S(x) || S(x')), where x' maximises that divergence.

    S(x) in the divergence carries gradient: detaching it is a known way to lose robustness.
    """

    terms: ClassVar = ("cross_entropy", "divergence")
    beta: float = Field(6.0, ge=0)
    clean_first: bool = Field(
        False,
        description="x goes through S before x', and once more after it, so that batch norm's running statistics see "
        "it twice: the authors' code computes S(x) again for the divergence",
    )

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """Returns what the authors' code (yaodongyu/TRADES) does, for CIFAR-10.

        Its quirks: eps is 0.031 and the step 0.007; S(x) is computed again for the divergence, so that batch norm sees
        x twice (clean_first); the attack starts from 0.001 N(0,1), which is not clamped; the rate falls at the start of
        epoch 75, that is after 74. It selects no checkpoint: `best` is ours, by the papers' PGD on the test set.
        """
        return Official(
            training={
                "epochs": 76,
                "batch_size": 128,
                "learning_rate": 0.1,
                "weight_decay": 2e-4,
                "milestones": [74],
                "inner_attack": {
                    "steps": 10,
                    "step_size": 0.007,
                    "eps": 0.031,
                    "start": "gaussian",
                    "project_start": False,
                },
                "selection": {"by": "pgd_trades"},
            },
            settings={"clean_first": True},
        )

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes CE(S(x), y) and beta KL(S(x) || S(x'))."""
        x = step.attack(lambda x, logits, clean: kl_divergence(clean, logits), step.student(step.x).logits)
        if self.clean_first:
            clean, adversarial = (step.student(images, train=True).logits for images in (step.x, x))
            step.student.update_statistics(step.x)
        else:
            adversarial, clean = (step.student(images, train=True).logits for images in (x, step.x))
        return (
            Term("cross_entropy", cross_entropy(clean, step.labels)),
            Term("divergence", kl_divergence(clean, adversarial), self.beta, divergence=True),
        )
