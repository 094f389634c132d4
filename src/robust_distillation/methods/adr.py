"""ADR, annealing self-distillation rectification (Wu et al., ICLR 2024)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from robust_distillation.losses import cross_entropy, true_class_probability
from robust_distillation.methods.contract import Method, Official, Term, TrainingStep, misclassification

if TYPE_CHECKING:
    from torch import Tensor


class ADR(Method):
    """ADR: minimises CE(S(x'), q) with rectified labels q, where x' maximises CE(S(x'), q).

    S is the student, x a clean image, x' an adversarial image within the threat model around x, y the label as a
    one-hot vector, CE the cross-entropy. The labels come from the average A of the student's weights and batch norm
    statistics, A <- decay A + (1 - decay) S after each optimisation step, which begins as a copy of the initial
    student. A is in eval mode; no other teacher is needed. With p = softmax(A(x) / t),

        q = lambda p + (1 - lambda) y,   lambda = clip(l - (max_k p_k - p_y), 0, 1).

    So an image on which A is wrong by more than l has the hard label. The temperature t and the number l follow half a
    cosine from their value at the start of the training to that at its end, in every optimisation step. The defaults
    are those of the authors for CIFAR-10.

    The students of the paper's rows "WA" are averages of the weights: `training.averaging: {name: ema, decay: 0.995}`.
    (That average begins with the weights after the first step, A with the initial ones.) Those of the rows "AWP" have
    `training.weight_perturbation: {gamma: 0.005, variant: adr}`.

    Attributes:
        terms: class constant: the loss term, `cross_entropy`.
        decay: decay of the average A, in [0, 1].
        temperature_start: t in the first optimisation step, above 0.
        temperature_end: t at the end of the training, above 0.
        interpolation_start: l in the first optimisation step, in [0, 1].
        interpolation_end: l at the end of the training, in [0, 1].
    """

    terms: ClassVar = ("cross_entropy",)
    decay: float = Field(0.995, ge=0, le=1)
    temperature_start: float = Field(2.5, gt=0)
    temperature_end: float = Field(2.0, gt=0)
    interpolation_start: float = Field(0.7, ge=0, le=1)
    interpolation_end: float = Field(0.95, ge=0, le=1)

    def networks(self, student: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Returns the architecture of the average, which is that of the student: {"average": `student`}."""
        return {"average": student}

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """Returns how the authors' code (yuyuwu5/ADR) trains in its form of adversarial training (PGD-AT).

        `classes`, the number of classes, chooses the dataset: 200 classes have the settings of Tiny-ImageNet, 100 those
        of CIFAR-100, all others those of CIFAR-10. `architecture` is ignored: ResNet-18 and WRN-34-10 have the same
        settings. Quirks of that code: batch norm is in train mode during the attack; the last batch of an epoch is left
        out; SGD has Nesterov's momentum. `best` is chosen on the test set at every epoch, under PGD of 10 steps of
        2/255; the start of that attack is clamped, here it is not.

        With AWP that code has other settings: `optimizer: {nesterov: false}`, and for CIFAR-10 and CIFAR-100
        `interpolation_end` 0.85, with temperatures from 2.5 to 1.5 and from 2 to 1. Tiny-ImageNet has a gamma of 0.001
        and `interpolation_start` 0.3. Its form with the loss of TRADES is not implemented.

        Returns:
            An Official: `training`, values of the section `training` of an experiment file, such as {"epochs": 200,
            "batch_size": 128}, and `settings`, values of the method's own settings. They are used with `protocol:
            official`.
        """
        tiny = {
            "temperature_start": 2.0,
            "temperature_end": 1.5,
            "interpolation_start": 0.5,
            "interpolation_end": 0.9,
        }
        settings = {100: {"temperature_start": 1.5, "temperature_end": 1.0}, 200: tiny}
        return Official(
            training={
                "epochs": 80 if classes == 200 else 200,
                "batch_size": 128,
                "learning_rate": 0.1,
                "optimizer": {"name": "SGD", "nesterov": True},
                "weight_decay": 5e-4,
                "drop_last": True,
                "milestones": [40, 60] if classes == 200 else [100, 150],
                "inner_attack": {
                    "steps": 10,
                    "step_size": 2 / 255,
                    "eps": 8 / 255,
                    "start": "uniform",
                    "mode": "train",
                },
                "selection": {"by": "pgd10"},
            },
            settings=settings.get(classes, {}),
        )

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes the term of the loss on the batch `step`; moves the average A towards the student, in place.

        S is the student, x the clean and x' the adversarial images. At the start of a batch S has the weights that the
        last optimisation step gave it, so A is what it would be if it had moved after that step.

        Returns:
            One Term with values [B] that are not reduced: `cross_entropy`, CE(S(x'), q) with the rectified labels q.
        """
        average = step.own["average"]
        step.once(lambda: average.follow(step.student, self.decay if step.progress else 0.0))
        labels = self._rectified(average(step.x).logits.detach(), step)
        x = step.attack(misclassification, labels)
        return (Term("cross_entropy", cross_entropy(step.student(x, train=True).logits, labels)),)

    def _rectified(self, logits: Tensor, step: TrainingStep) -> Tensor:
        """Computes the rectified labels q [B,K] from the average's logits [B,K]."""
        logits = logits / _annealed(self.temperature_start, self.temperature_end, step.progress)
        p, hard = logits.softmax(1), step.targets
        if not hard.is_floating_point():
            hard = p.new_zeros(p.shape).scatter(1, hard[:, None], 1.0)
        gap = p.amax(1) - true_class_probability(logits, step.labels)
        weight = _annealed(self.interpolation_start, self.interpolation_end, step.progress) - gap
        weight = weight.clamp(0, 1)[:, None]
        return weight * p + (1 - weight) * hard


def _annealed(start: float, end: float, progress: float) -> float:
    """Returns the value between `start` and `end` along half a cosine, at the share `progress` in [0, 1]."""
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * progress))
