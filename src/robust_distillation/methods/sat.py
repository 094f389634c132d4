"""SAT, standard adversarial training (Madry et al., ICLR 2018)."""

from __future__ import annotations

from typing import ClassVar

from robust_distillation.losses import cross_entropy
from robust_distillation.methods.contract import Method, Official, Term, TrainingStep, misclassification


class SAT(Method):
    """Standard adversarial training: minimises CE(S(x'), y), where x' maximises CE(S(x'), y).

    S is the student, x' an adversarial image within the threat model around a clean image, y its label, CE the
    cross-entropy.

    Attributes:
        terms: class constant: the only loss term, `cross_entropy`.
    """

    terms: ClassVar = ("cross_entropy",)

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """Returns how the authors' code (MadryLab/cifar10_challenge) trains, for 80,000 steps on CIFAR-10.

        `classes` and `architecture` are ignored. Quirks of that code: batch norm is in train mode during the attack, so
        that its running statistics move with every step of the attack; weight decay acts on the weights of convolutions
        and linear layers only; an epoch's last, smaller batch is left out; the start of the attack is clamped to [0,1].
        The parts of its network are not kept: standardisation of each image, leaky ReLU, padding of 2. That code
        selects no checkpoint: `best` is chosen by this project's rule, accuracy on the test set under PGD of 20 steps
        of 0.003.

        Returns:
            An Official: `training`, values of the section `training` of an experiment file, such as {"epochs": 200,
            "batch_size": 128}, and `settings`, values of the method's own settings. They are used with `protocol:
            official`.
        """
        return Official(
            training={
                "epochs": 205,
                "batch_size": 128,
                "learning_rate": 0.1,
                "weight_decay": 2e-4,
                "weight_decay_on": "weights",
                "drop_last": True,
                "milestones": [103, 154],
                "inner_attack": {
                    "steps": 10,
                    "step_size": 2 / 255,
                    "eps": 8 / 255,
                    "start": "uniform",
                    "mode": "train",
                },
                "selection": {"by": "pgd_trades"},
            }
        )

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes the terms of the loss on the batch `step`.

        S is the student, x' the adversarial images, y their labels.

        Returns:
            Terms with values [B] that are not reduced: `cross_entropy`, CE(S(x'), y).
        """
        adversarial = step.attack(misclassification, step.targets)
        logits = step.student(adversarial, train=True).logits
        return (Term("cross_entropy", cross_entropy(logits, step.targets)),)
