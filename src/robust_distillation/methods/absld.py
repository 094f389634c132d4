"""ABSLD, anti-bias soft label distillation (Zhao et al., NeurIPS 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from robust_distillation.losses import cross_entropy, kl_divergence
from robust_distillation.methods.contract import (
    TEACHER,
    EpochEnd,
    Method,
    Official,
    Sizes,
    TeacherCalls,
    Term,
    TrainingStep,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

ADVERSARIAL, CLEAN = 0, 1  # rows of the state


class ABSLD(Method):
    """ABSLD: minimises (1-alpha) KL(T^b(x) || S(x)) + alpha KL(T^a(x) || S(x')), where x' maximises KL(T^a(x) ||
    S(x')).

    S is the student, T the teacher, x a clean image, x' an adversarial image within the threat model around x, y the
    label, KL the divergence of the softmaxes. T^a(x) means softmax(logits / a_y) with the temperature a_y of the
    image's class, T^b(x) the same with b_y. The student has no temperature. This is RSLAD with soft labels that are
    sharper for the classes that the student finds hard, so that its worst class gets better.

    All temperatures start at 1 and change after each epoch. Let L_k be the sum of CE(S(x'), y) over the images of class
    k in this epoch (CE is the cross-entropy), and g_k = L_k - mean of L. Then a_k becomes a_k - r g_k / max |g|, within
    the bounds. b_k follows CE(S(x), y) in the same way. The rate r is proportional to the learning rate of the next
    epoch. L is a sum as in the authors' code, so a class with more images counts as harder.

    Attributes:
        terms: class constant: the loss terms, `clean` and `adversarial`.
        alpha: weight of the loss on x', in [0, 1]; 5/6 as in the authors' code.
        rate: r at the initial learning rate, at least 0; 0.1 as in the authors' code. With 0 the method is RSLAD.
        temperature_min: lowest temperature, in (0, 1]; 0.5 as in the authors' code.
        temperature_max: highest temperature, at least 1; 5 as in the authors' code.
        multiply_temperatures: True: both a_y and b_y are replaced by their product a_y b_y, as in the authors' code.
        log_constant: number added to the teacher's probabilities inside the logarithm of the outer divergences: 1e-5 in
            the authors' code, where it changes the loss and no gradient.
    """

    terms: ClassVar = ("clean", "adversarial")
    alpha: float = Field(5 / 6, ge=0, le=1)
    rate: float = Field(0.1, ge=0, description="of the temperatures' change after an epoch")
    temperature_min: float = Field(0.5, gt=0, le=1)
    temperature_max: float = Field(5.0, ge=1)
    multiply_temperatures: bool = Field(
        False, description="every loss has the product of both temperatures of a class, as in the authors' code"
    )
    log_constant: float = Field(
        0.0,
        ge=0,
        description="added to the teacher's probabilities inside the logarithm of the outer divergences: 1e-5 in the "
        "authors' code, where it moves the loss and no gradient",
    )

    def teachers(self) -> dict[str, TeacherCalls]:
        """Declares one teacher (role `teacher`), of which the cached logits of clean views are read.

        A clean view is an augmented training image.
        """
        return {TEACHER: TeacherCalls(cached=("logits",))}

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """Returns how the authors' code (zhaoshiji123/ABSLD) trains a ResNet-18 on CIFAR-10.

        `classes` and `architecture` are ignored: there is no script for other datasets or students, and the same
        settings are used for them. Quirks of that code: both scaled logits are one tensor, which is divided by both
        temperatures (multiply_temperatures); the divergence is averaged over batch and classes, for 10 classes a tenth
        of the sum over the classes (kl_scale); 1e-5 inside the logarithm (log_constant); the attack starts from 0.001
        N(0,1), which is not clamped; the rate of the temperatures falls with the learning rate, before the update after
        the milestone epoch. That code keeps the epoch with the highest accuracy under PGD of 20 steps of 0.003 on the
        test set, and the one with the highest sum of this accuracy and that of the worst class; `best` is the first of
        the two. It evaluates every 10th epoch and from 215 on every epoch. As published it cannot save a checkpoint:
        a variable in the file's name is not defined.

        Returns:
            An Official: `training`, values of the section `training` of an experiment file, such as {"epochs": 200,
            "batch_size": 128}, and `settings`, values of the method's own settings. They are used with `protocol:
            official`.
        """
        return Official(
            training={
                "epochs": 300,
                "batch_size": 128,
                "learning_rate": 0.1,
                "weight_decay": 2e-4,
                "milestones": [215, 260, 285],
                "kl_scale": "tenth",
                "inner_attack": {
                    "steps": 10,
                    "step_size": 2 / 255,
                    "eps": 8 / 255,
                    "start": "gaussian",
                    "project_start": False,
                },
                "selection": {"by": "pgd_trades", "every": 10, "every_epoch_after": 214},
            },
            settings={"multiply_temperatures": True, "log_constant": 1e-5},
        )

    def build(self, sizes: Sizes, generator: torch.Generator) -> dict[str, nn.Module]:
        """Builds the module `classes`: temperatures and sums of losses of each class, [2,K], first those for x'.

        K is `sizes.classes`; `generator` is ignored.
        """
        import torch

        state = torch.nn.Module()
        state.register_buffer("temperatures", torch.ones(2, sizes.classes))
        state.register_buffer("sums", torch.zeros(2, sizes.classes))
        return {"classes": state}

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes the terms of the loss on the batch `step`; adds the student's cross-entropies to the sums in place.

        S is the student, x the clean and x' the adversarial images. T^a(x) and T^b(x) are the teacher's softmaxes with
        the temperatures of the image's class.

        Returns:
            Terms with values [B] that are not reduced: `clean`, KL(T^b(x) || S(x)) of weight 1-alpha, and
            `adversarial`, KL(T^a(x) || S(x')) of weight alpha.
        """
        state, logits = step.own["classes"], step.cached().logits
        temperatures = state.temperatures[:, step.labels].unsqueeze(2)
        targets = [logits / temperature for temperature in temperatures]
        if self.multiply_temperatures:
            targets = [targets[ADVERSARIAL] / temperatures[CLEAN]] * 2
        x = step.attack(lambda x, logits, target: kl_divergence(target, logits), targets[ADVERSARIAL])
        adversarial, clean = (step.student(images, train=True).logits for images in (x, step.x))
        for sums, own in zip(state.sums, (adversarial, clean), strict=True):
            sums += self._by_class(step.gather(own.detach()), step.gather(step.labels)).to(sums.dtype)
        constant = self.log_constant
        return tuple(
            Term(name, kl_divergence(target, own, target_constant=constant), weight, divergence=True)
            for name, own, target, weight in (
                ("clean", clean, targets[CLEAN], 1 - self.alpha),
                ("adversarial", adversarial, targets[ADVERSARIAL], self.alpha),
            )
        )

    def after_epoch(self, end: EpochEnd) -> None:
        """Updates the temperatures by the sums of the epoch, and sets the sums to 0.

        Args:
            end: `end.own["classes"]` holds both; the rate is multiplied by `end.next_decay`.
        """
        state = end.own["classes"]
        gap = state.sums - state.sums.mean(1, keepdim=True)
        largest = gap.abs().amax(1, keepdim=True)
        change = self.rate * end.next_decay * gap / (largest + (largest == 0))  # without gaps nothing changes
        state.temperatures.sub_(change).clamp_(self.temperature_min, self.temperature_max)
        state.sums.zero_()

    @staticmethod
    def _by_class(logits, labels):
        """Returns the sum of the cross-entropy over the images of each class, [K], from logits [B,K], labels [B]."""
        zeros = logits.new_zeros(logits.shape)
        return zeros.scatter(1, labels[:, None], cross_entropy(logits, labels)[:, None]).sum(0)
