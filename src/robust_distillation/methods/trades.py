"""TRADES (Zhang et al., ICML 2019)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from robust_distillation.losses import cross_entropy, kl_divergence
from robust_distillation.methods.contract import Method, Official, Term, TrainingStep


class TRADES(Method):
    """TRADES: minimises CE(S(x), y) + beta KL(S(x) || S(x')), where x' maximises KL(S(x) || S(x')).

    S is the student, x a clean image, x' an adversarial image within the threat model around x, y the label, CE the
    cross-entropy, KL the divergence of the softmaxes. S(x) in the divergence carries gradient: detaching it is a known
    way to lose robustness.

    Attributes:
        terms: class constant: the loss terms, `cross_entropy` and `divergence`.
        beta: weight of the divergence, at least 0.
        clean_first: True: x goes through S before x', and once more after it, so that batch norm's running statistics
            see x twice, as in the authors' code. False: x' goes through S first, then x.
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
        """Returns how the authors' code (yaodongyu/TRADES) trains on CIFAR-10.

        `classes` and `architecture` are ignored. Quirks of that code: eps is 0.031 and the step 0.007; the student's
        output on the clean images is computed again for the divergence, so that batch norm sees them twice
        (clean_first); the attack starts from 0.001 N(0,1), which is not clamped; the learning rate falls at the start
        of epoch 75, that is after 74. That code selects no checkpoint: `best` is chosen by this project's rule,
        accuracy on the test set under PGD of 20 steps of 0.003.

        Returns:
            An Official: `training`, values of the section `training` of an experiment file, such as {"epochs": 200,
            "batch_size": 128}, and `settings`, values of the method's own settings. They are used with `protocol:
            official`.
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
        """Computes the terms of the loss on the batch `step`.

        S is the student, x the clean and x' the adversarial images, y the labels.

        Returns:
            Terms with values [B] that are not reduced: `cross_entropy`, CE(S(x), y), and `divergence`, KL(S(x) ||
            S(x')) of weight beta.
        """
        x = step.attack(lambda x, logits, clean: kl_divergence(clean, logits), step.student(step.x).logits)
        if self.clean_first:
            clean, adversarial = (step.student(images, train=True).logits for images in (step.x, x))
            step.student.update_statistics(step.x)
        else:
            adversarial, clean = (step.student(images, train=True).logits for images in (x, step.x))
        return (
            Term("cross_entropy", cross_entropy(clean, step.targets)),
            Term("divergence", kl_divergence(clean, adversarial), self.beta, divergence=True),
        )
