"""MART, misclassification-aware adversarial training (Wang et al., ICLR 2020)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from robust_distillation.losses import cross_entropy, kl_divergence, true_class_probability
from robust_distillation.methods.contract import Method, Official, Term, TrainingStep, misclassification


class MART(Method):
    """MART: minimises BCE(S(x'), y) + beta (1 - S_y(x)) KL(S(x) || S(x')), where x' maximises CE(S(x'), y).

    S is the student, x a clean image, x' an adversarial image within the threat model around x, y the label, S_y the
    probability of y, CE the cross-entropy, KL the divergence of the softmaxes. BCE(p, y) = -log p_y - log(1 - max_{k !=
    y} p_k). The constants 1.0001 and 1.0000001 that keep the logarithm and the weight off zero are those of the
    authors' code; so is the gradient through the weight.

    Attributes:
        terms: class constant: the loss terms, `boosted_cross_entropy` and `divergence`.
        beta: weight of the divergence, at least 0.
        log_constant: number added to 1 - max_{k != y} p_k and, in the divergence, to the probabilities of x', inside
            the logarithms: 1e-12 in the authors' code.
        clean_first: True: x goes through S before x', as in the authors' code. False: after it.
    """

    terms: ClassVar = ("boosted_cross_entropy", "divergence")
    beta: float = Field(5.0, ge=0)
    log_constant: float = Field(
        0.0, ge=0, description="added to the probabilities of x' inside the logarithms: 1e-12 in the authors' code"
    )
    clean_first: bool = Field(False, description="x goes through S before x', as in the authors' code")

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """Returns how the authors' code (YisenWang/MART) trains on CIFAR-10.

        `architecture` is the name of the student's architecture: wide ResNets have settings of their own; all others
        have those of ResNet-18. `classes` is ignored. Quirks of that code: eps is 0.031 and the step 0.007; the attack
        starts from 0.001 N(0,1), which is not clamped; 1e-12 inside the logarithms (log_constant); the learning rate
        falls at the start of epochs 75 and 90, that is after 74 and 89. `best` is the best of its log: PGD of 20 steps
        on the test set at every epoch.

        Returns:
            An Official: `training`, values of the section `training` of an experiment file, such as {"epochs": 200,
            "batch_size": 128}, and `settings`, values of the method's own settings. They are used with `protocol:
            official`.
        """
        wide = "wide_resnet" in architecture
        return Official(
            training={
                "epochs": 90 if wide else 120,
                "batch_size": 128,
                "learning_rate": 0.1 if wide else 0.01,
                "weight_decay": 7e-4 if wide else 3.5e-3,
                "milestones": [74, 89] if wide else [74, 89, 99],
                "inner_attack": {
                    "steps": 10,
                    "step_size": 0.007,
                    "eps": 0.031,
                    "start": "gaussian",
                    "project_start": False,
                },
                "selection": {"by": "pgd_trades"},
            },
            settings={"log_constant": 1e-12, "clean_first": True, "beta": 6.0 if wide else 5.0},
        )

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes the terms of the loss on the batch `step`.

        S is the student, S_y its probability of the label y, x the clean and x' the adversarial images. BCE(p, y) is
        -log p_y - log(1 - max_{k != y} p_k).

        Returns:
            Terms with values [B] that are not reduced: `boosted_cross_entropy`, BCE(S(x'), y), and `divergence`, (1 -
            S_y(x)) KL(S(x) || S(x')) of weight beta.
        """
        x = step.attack(misclassification, step.targets)
        if self.clean_first:
            clean, adversarial = (step.student(images, train=True).logits for images in (step.x, x))
        else:
            adversarial, clean = (step.student(images, train=True).logits for images in (x, step.x))
        others = adversarial.softmax(1).scatter(1, step.labels[:, None], 0.0)
        margin = -(1.0001 - others.amax(1) + self.log_constant).log()
        doubt = 1.0000001 - true_class_probability(clean, step.labels)
        distance = kl_divergence(clean, adversarial, constant=self.log_constant)
        return (
            Term("boosted_cross_entropy", cross_entropy(adversarial, step.targets) + margin),
            Term("divergence", doubt * distance, self.beta, divergence=True),
        )
