"""CKD, contrastive knowledge distillation from a sample-wise perspective (Zhu et al., arXiv 2404.14109, 2024)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from robust_distillation.losses import cross_entropy
from robust_distillation.methods.contract import (
    TEACHER,
    Method,
    Official,
    TeacherCalls,
    Term,
    TrainingStep,
    misclassification,
)


class CKD(Method):
    """CKD: minimises CE(S(x), y) - beta log( e^(cos(T(x), S(x))/t) / sum_j e^(cos(T(x), S(x_j))/t) ) on clean images.

    S is the student, T the teacher, x a clean image, y its label, CE the cross-entropy, cos the cosine of two vectors
    of logits, t the temperature. The x_j are all images of the batch, of all processes, among them x itself. So the
    teacher's logits of an image must be closer to the student's logits of this image than to those of the others. The
    teacher is the only anchor; the negatives are the student's logits. The defaults are those of most of the authors'
    configurations, for example of ResNet-8x4 and WRN-16-2.

    `adversarial: true` is not from the paper. Wherever the student sees x, it puts an adversarial image x' in its
    place, which maximises CE(S(x'), y) within the threat model around x. It is an ablation of GACD: the same pairs of
    teacher and student without memory banks, heads and the reweighting of samples.

    Attributes:
        terms: class constant: the loss terms, `cross_entropy` and `contrast`.
        beta: weight of the contrastive term, at least 0: 100, 50 or 10 in the authors' configurations.
        temperature: t, above 0: 1, or 2 where beta is 50.
        adversarial: True: the student is trained on adversarial images. The teacher sees clean images in both cases.
    """

    terms: ClassVar = ("cross_entropy", "contrast")
    beta: float = Field(100.0, ge=0)
    temperature: float = Field(1.0, gt=0)
    adversarial: bool = False

    def teachers(self) -> dict[str, TeacherCalls]:
        """Declares one teacher (role `teacher`), of which the cached logits of clean views are read.

        A clean view is an augmented training image.
        """
        return {TEACHER: TeacherCalls(cached=("logits",))}

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """Returns how the authors' code (ZhouXinzzzzz/CKD) trains on CIFAR-100.

        `classes` is ignored. `architecture`, the name of the student's architecture, sets batch size and learning rate:
        MobileNetV2 has its own. That code has one configuration for each pair of networks; its ResNets of width 16 and
        its WRN-40-1 have other values of beta and temperature than stand here. It trains and is evaluated on clean
        images; `best` is the epoch with the highest clean accuracy on the test set. The mean of the accuracies on clean
        images and under PGD of 10 steps of 2/255 comes closest to it: without adversarial training the second one is
        about 0. The inner maximisation is used with `adversarial: true` only; its values are those of this project.

        Two points of that code cannot be set: it normalises images by mean and standard deviation before the network,
        and with several GPUs the negatives of an image are the images of its own GPU.

        Returns:
            An Official: `training`, values of the section `training` of an experiment file, such as {"epochs": 200,
            "batch_size": 128}, and `settings`, values of the method's own settings. They are used with `protocol:
            official`.
        """
        small = architecture == "mobilenet_v2"
        return Official(
            training={
                "epochs": 480,
                "batch_size": 32 if small else 64,
                "learning_rate": 0.01 if small else 0.05,
                "weight_decay": 5e-4,
                "milestones": [],
                "schedule": {"name": "cosine", "per": "epoch"},
                "inner_attack": {"step_size": 2 / 255},
                "selection": {"by": "mean.pgd10"},
            }
        )

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes the terms of the loss on the batch `step`.

        S is the student, T the teacher, x a clean image (with `adversarial` the student sees x'), y its label, cos the
        cosine of two vectors of logits, t the temperature. The sum is over all images of the batch, of all processes.

        Returns:
            Terms with values [B] that are not reduced: `cross_entropy`, CE(S(x), y), and `contrast`, log sum_j
            e^(cos(T(x), S(x_j))/t) - cos(T(x), S(x))/t of weight beta.
        """
        from torch.nn.functional import normalize

        x = step.attack(misclassification, step.targets) if self.adversarial else step.x
        logits = step.student(x, train=True).logits
        student, teacher = normalize(logits, dim=1), normalize(step.cached().logits, dim=1)
        every = teacher @ step.gather(student).T / self.temperature  # [B, all images]
        own = (teacher * student).sum(1) / self.temperature
        return (
            Term("cross_entropy", cross_entropy(logits, step.targets)),
            Term("contrast", every.logsumexp(1) - own, self.beta),
        )
