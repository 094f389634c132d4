"""FGSM-RS, adversarial training by one step from a random start (Wong et al., ICLR 2020)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from robust_distillation.losses import cross_entropy
from robust_distillation.methods.contract import Method, Official, Term, TrainingStep, misclassification


class FGSMRS(Method):
    """FGSM-RS: minimises CE(S(x'), y), where x' is one step of length 1.25 eps uphill on CE(S(x'), y) from x + noise.

    S is the student, x a clean image, x' an adversarial image within the threat model around x, y the label, CE the
    cross-entropy and eps the radius of the threat model. The noise is uniform in the ball of radius eps. x + noise is
    projected onto [0,1] before the step, x' onto the ball and [0,1] after it. So it is SAT with a single step: of
    `training.inner_attack`, `start`, `eps`, `mode` and `project_start` apply, `steps` and `step_size` do not.

    Single-step training can fail within an epoch (catastrophic overfitting): accuracy under PGD falls to 0 while that
    under FGSM rises. The columns `selection_robust` and `train_robust` of the training curves show it. The authors'
    code can then stop (`--early-stop`); here `best` is the best epoch before.

    Attributes:
        terms: class constant: the only loss term, `cross_entropy`.
        step_size: length of the step divided by eps, above 0; 1.25 in the paper.
    """

    terms: ClassVar = ("cross_entropy",)
    step_size: float = Field(1.25, gt=0, description="length of the step divided by eps")

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """Returns how the authors' code (locuslab/fast_adversarial, CIFAR10/train_fgsm.py) trains on CIFAR-10.

        `classes` and `architecture` are ignored. The learning rate rises along a line to 0.2 in the first half of 15
        epochs and falls to 0 in the second. Quirk of that code: batch norm is in train mode during the attack, so that
        its running statistics move twice in each step.

        Not kept: half precision; the standardisation of the images; the limits of the noise, of which the upper one is
        by mistake that of the first channel in all three (0.985 eps in the second, 1.059 eps in the third); a peak of
        the learning rate that comes one step later. That code keeps the last epoch, which is `last`; `best` is chosen
        by this project's rule, on the test set under PGD of 10 steps of 2/255.

        Returns:
            An Official: `training`, values of the section `training` of an experiment file, such as {"epochs": 200,
            "batch_size": 128}, and `settings`, values of the method's own settings. They are used with `protocol:
            official`.
        """
        return Official(
            training={
                "epochs": 15,
                "batch_size": 128,
                "learning_rate": 0.2,
                "weight_decay": 5e-4,
                "schedule": {"name": "cyclic", "start": 0.0, "end": 0.0, "peak": 0.5, "anneal": "linear"},
                "inner_attack": {
                    "steps": 1,
                    "step_size": 10 / 255,
                    "eps": 8 / 255,
                    "start": "uniform",
                    "mode": "train",
                },
                "selection": {"by": "pgd10"},
            }
        )

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes the terms of the loss on the batch `step`.

        S is the student, x' the adversarial images, y their labels.

        Returns:
            Terms with values [B] that are not reduced: `cross_entropy`, CE(S(x'), y).
        """
        length = self.step_size * step.threat.eps
        x = step.attack(misclassification, step.targets, steps=1, step_size=length)
        logits = step.student(x, train=True).logits
        return (Term("cross_entropy", cross_entropy(logits, step.targets)),)
