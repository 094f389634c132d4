"""N-FGSM, adversarial training by one step from strong noise, without projection (de Jorge et al., NeurIPS 2022)."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field

from robust_distillation.losses import cross_entropy
from robust_distillation.methods.contract import Method, Official, Term, TrainingStep, misclassification


class NFGSM(Method):
    """N-FGSM: minimises CE(S(x'), y), where x' is one step of length eps uphill on CE(S(x'), y) from x + noise.

    S is the student, x a clean image, x' an image in [0,1], y the label, CE the cross-entropy and eps the radius of the
    threat model. The noise is uniform in the ball of radius k eps. x + noise and x' are projected onto [0,1] and not
    onto the ball: x' is up to (k + 1) eps away from x. The noise is part of the training image rather than a start of
    a search. Of `training.inner_attack`, `start`, `eps`, `mode` and `project_start` apply (`start: zero` removes the
    noise), `steps` and `step_size` do not.

    Attributes:
        terms: class constant: the only loss term, `cross_entropy`.
        noise: k, the radius of the noise divided by eps, at least 0. The paper takes 2 for CIFAR-10, and 3 or 4 for
            large eps.
        step_size: length of the step divided by eps, above 0; 1 in the paper.
    """

    terms: ClassVar = ("cross_entropy",)
    noise: float = Field(2.0, ge=0, description="radius of the noise divided by eps")
    step_size: float = Field(1.0, gt=0, description="length of the step divided by eps")

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """Returns how the authors' code (pdejorge/N-FGSM, train.py) trains on CIFAR-10 and CIFAR-100.

        `classes` and `architecture` are ignored. The learning rate rises along a line to 0.2 in the first half of 30
        epochs and falls to 0 in the second. Quirk of that code: batch norm is in train mode during the attack, so that
        its running statistics move twice in each step.

        Not kept: the standardisation of the images; a peak of the learning rate that comes one step later; the settings
        for SVHN (the learning rate is 0.05 and peaks after two fifths, and eps, noise and step rise over the first five
        epochs). That code keeps the last epoch, which is `last`; its option --validation-early-stop keeps the best
        under PGD of 10 steps of 2/255 on 1,000 training images. Here `best` is chosen under that attack on the test
        set.

        Returns:
            An Official: `training`, values of the section `training` of an experiment file, such as {"epochs": 200,
            "batch_size": 128}, and `settings`, values of the method's own settings. They are used with `protocol:
            official`.
        """
        return Official(
            training={
                "epochs": 30,
                "batch_size": 128,
                "learning_rate": 0.2,
                "weight_decay": 5e-4,
                "schedule": {"name": "cyclic", "start": 0.0, "end": 0.0, "peak": 0.5, "anneal": "linear"},
                "inner_attack": {
                    "steps": 1,
                    "step_size": 8 / 255,
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
        x = step.attack(
            misclassification,
            step.targets,
            noise=self.noise * step.starting_noise(),
            steps=1,
            step_size=self.step_size * step.threat.eps,
            eps=math.inf,
        )
        logits = step.student(x, train=True).logits
        return (Term("cross_entropy", cross_entropy(logits, step.targets)),)
