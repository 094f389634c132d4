"""DGAD, dynamic guidance adversarial distillation (Park & Min, ECCV 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from robust_distillation.losses import kl_divergence
from robust_distillation.methods.contract import TEACHER, Method, Official, TeacherCalls, Term, TrainingStep

if TYPE_CHECKING:
    from torch import Tensor


class DGAD(Method):
    """DGAD: minimises m KL(T~(x) || S(x)) + (1-m) KL(T~(x') || S(x')) + beta R, where x' maximises KL(T(x') || S(x')).

    S is the student, T the teacher, x a clean image, x' an adversarial image within the threat model around x, y the
    label, KL the divergence of the softmaxes. R is the mean over the classes of the squared difference of the softmaxes
    of S(x) and S(x'), with gradient into both. m is 1 for an image whose clean view the teacher gets wrong and 0 for
    every other: the first are learned clean, the others adversarial. T~ are the teacher's logits, of which the largest
    and that of y are exchanged where the teacher is wrong, so that its prediction becomes y. The gradient of the inner
    maximisation flows through both networks as in AdaAD; there no logits are exchanged. beta = 1 is the default of the
    authors' code.

    That code takes the mean divergence of each of the two groups, L_clean over the n images with m = 1 and
    L_adversarial over the others, and weighs them by n/N and (N-n)/N with N = 128 (`group_batch_size`). For a batch of
    N images this is the formula above; for the smaller last batch of an epoch it is another. Here the mean over a group
    without images is 0. (The code ends with a division by zero if there are no others.)

    Attributes:
        terms: class constant: the loss terms, `clean`, `adversarial` and `consistency`.
        beta: weight of R, at least 0.
        group_batch_size: N, at least 1; the batch size of the training in the authors' code. None: the first formula.
        misplaced_bracket: True: the loss of the authors' code for MobileNetV2, 0.5 ((n/N) L_clean + (N-n)/N)
            L_adversarial + beta R, in which the two divergences are multiplied. It needs `group_batch_size`. The factor
            L_clean is summed over the classes, whatever `training.kl_scale` is.

    Unknown:
        - beta of each dataset and architecture, which the paper tuned.
        - Whether the paper's last term has softmaxes or logits, and a square: it is quoted as ||S(x) - S(x')||_2.
    """

    terms: ClassVar = ("clean", "adversarial", "consistency")
    beta: float = Field(1.0, ge=0)
    group_batch_size: int | None = Field(
        None, ge=1, description="N of the weights n/N and (N-n)/N: 128, the batch size, in the authors' code"
    )
    misplaced_bracket: bool = Field(
        False, description="the loss of the authors' code for MobileNetV2, where the two divergences are multiplied"
    )

    @model_validator(mode="after")
    def _bracket_of_groups(self) -> DGAD:
        if self.misplaced_bracket and self.group_batch_size is None:
            raise ValueError("misplaced_bracket needs group_batch_size: set it to the batch size, such as 128")
        return self

    def teachers(self) -> dict[str, TeacherCalls]:
        """Declares one teacher (role `teacher`), which is called on adversarial images, with and without gradient.

        Its cached logits of clean views (augmented training images) are read too.
        """
        return {TEACHER: TeacherCalls(cached=("logits",), live=True, gradient=True)}

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """Returns how the authors' code (kunsaram01/DGAD, main.py) trains.

        `architecture`, the name of the student's, decides a quirk of that code: for `mobilenet_v2` a bracket is
        misplaced, so that the clean loss multiplies the adversarial one (misplaced_bracket). The published rows of
        MobileNetV2 come from it. `classes` is ignored. Other quirks: the weights of the two groups have a constant 128,
        also in the smaller last batch (group_batch_size); the attack starts from 0.001 N(0,1), which is not clamped.
        Divergences are summed over the classes. `best` is chosen on the test set at every epoch, under PGD of 10 steps
        of 2/255. The code's branch `DGAD_IAD1` compares the student's logits with the same logits of a second pass: it
        has the same loss and gradients as this one, only batch norm's running statistics see both batches twice.

        Returns:
            An Official: `training`, values of the section `training` of an experiment file, such as {"epochs": 200,
            "batch_size": 128}, and `settings`, values of the method's own settings. They are used with `protocol:
            official`.
        """
        return Official(
            training={
                "epochs": 200,
                "batch_size": 128,
                "learning_rate": 0.1,
                "weight_decay": 5e-4,
                "milestones": [100, 150],
                "kl_scale": "sum",
                "inner_attack": {
                    "steps": 10,
                    "step_size": 2 / 255,
                    "eps": 8 / 255,
                    "start": "gaussian",
                    "project_start": False,
                },
                "selection": {"by": "pgd10"},
            },
            settings={"group_batch_size": 128, "misplaced_bracket": architecture == "mobilenet_v2"},
        )

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes the terms of the loss on the batch `step`.

        S is the student, T~ the teacher with exchanged logits, x the clean and x' the adversarial images.

        Returns:
            Terms with values [B] that are not reduced: `clean`, m KL(T~(x) || S(x)), `adversarial`, (1-m) KL(T~(x') ||
            S(x')), both with the weights that the settings choose, and `consistency`, R of weight beta.
        """
        teacher = step.teacher[TEACHER]
        x = step.attack(lambda x, logits: kl_divergence(teacher(x).logits, logits))
        clean, adversarial = (step.student(images, train=True).logits for images in (step.x, x))
        target, target_adversarial = step.cached().logits, teacher(x).logits
        wrong = (target.argmax(1) != step.labels).to(clean.dtype)
        on_clean = wrong * kl_divergence(exchanged(target, step.labels), clean)
        on_adversarial = (1 - wrong) * kl_divergence(exchanged(target_adversarial, step.labels), adversarial)
        error = (adversarial.softmax(1) - clean.softmax(1)).square().mean(1)
        weight_clean, weight_adversarial = self._weights(step, on_clean, wrong)
        return (
            Term("clean", on_clean, weight_clean, divergence=True),
            Term("adversarial", on_adversarial, weight_adversarial, divergence=True),
            Term("consistency", error, self.beta),
        )

    def _weights(self, step: TrainingStep, on_clean: Tensor, wrong: Tensor) -> tuple[float | Tensor, float | Tensor]:
        """Computes the factors of the batch means of `clean` and `adversarial`."""
        if self.group_batch_size is None:
            return 1.0, 1.0
        size, wrong = self.group_batch_size, step.gather(wrong)
        images, n = len(wrong), wrong.sum()
        by_group, by_other = images / n.clamp(min=1), images / (images - n).clamp(min=1)
        if self.misplaced_bracket:
            return 0.0, 0.5 * (n / size * by_group * step.mean(on_clean) + (size - n) / size) * by_other
        return n / size * by_group, (size - n) / size * by_other


def exchanged(logits: Tensor, labels: Tensor) -> Tensor:
    """Exchanges the largest logit of each image with that of its label (label swapping).

    Args:
        logits: float [B,K], for B images and K classes.
        labels: true classes, int64 [B].

    Returns:
        [B,K]: the same logits in another order, the largest at the label. Where it is there already, nothing changes.
    """
    label, top = labels[:, None], logits.argmax(1, keepdim=True)
    true, largest = logits.gather(1, label), logits.gather(1, top)
    return logits.scatter(1, top, true).scatter(1, label, largest)
