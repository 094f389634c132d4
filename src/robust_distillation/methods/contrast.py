"""Noise-contrastive estimation against memory banks, the machinery of CRD (Tian et al., ICLR 2020)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from robust_distillation.methods.contract import TEACHER, Sizes, TrainingStep


class MemoryContrast(nn.Module):
    """Two projection heads, and for each network a memory bank of the last projection of every training image.

    The score of a pair is exp(u.v / temperature). P is its score over the normaliser Z, which the first batch fixes at
    (mean score) x (number of images). With n images, K negatives and noise p = 1/n,
        L_i = -log( P_pos / (P_pos + K p) ) - sum_neg log( K p / (P_neg + K p) ),
    once with the student's projection against the teacher's bank and once the other way round; the two are summed.
    CRD's code draws the negatives without replacement if there are K of them, this module with replacement: the same
    expectation at a fraction of the cost.
    """

    def __init__(
        self,
        sizes: Sizes,
        dimension: int,
        negatives: int,
        temperature: float,
        momentum: float,
        generator: torch.Generator,
    ):
        """Builds heads and banks with random values.

        Args:
            sizes: number, classes and labels of the training images, and the widths of both networks' features.
            dimension: width of the projections.
            negatives: number K of negatives of an image.
            temperature: temperature of the scores.
            momentum: share of the old projection in an updated row of a bank, in [0,1).
            generator: the source of the initial values.

        Raises:
            ValueError: the training images are of fewer than two classes.
        """
        super().__init__()
        self.negatives, self.temperature, self.momentum = negatives, temperature, momentum
        self.student_head = _linear(sizes.student_features, dimension, generator)
        self.teacher_head = _linear(sizes.teacher_features[TEACHER], dimension, generator)
        for name in ("student_bank", "teacher_bank"):
            bound = 1 / math.sqrt(dimension / 3)
            bank = torch.rand(sizes.samples, dimension, generator=generator) * 2 * bound - bound
            self.register_buffer(name, bank)
            self.register_buffer(name.replace("bank", "normaliser"), torch.zeros(()))
        # The training images sorted by class: the images of other classes are then all but one contiguous run.
        self.register_buffer("by_class", sizes.labels.argsort(stable=True))
        counts = sizes.labels.bincount(minlength=sizes.classes)
        if int((counts > 0).sum()) < 2:
            raise ValueError(
                "contrast needs training images of at least two classes: negatives come from other classes"
            )
        self.register_buffer("class_start", counts.cumsum(0) - counts)
        self.register_buffer("class_count", counts)

    def forward(self, student: Tensor, teacher: Tensor, step: TrainingStep) -> Tensor:
        """Computes the losses [B] of a batch, then updates both banks with the rows of all processes.

        Args:
            student: features of the student, [B,Ds].
            teacher: features of the teacher, [B,Dt].
            step: the batch that the features are of.
        """
        u = nn.functional.normalize(self.student_head(student), dim=1)
        v = nn.functional.normalize(self.teacher_head(teacher), dim=1)
        negatives = self.negatives_of(step.labels, step.uniform(self.negatives, dtype=torch.float64))
        losses = self.nce(u, "teacher", negatives, step) + self.nce(v, "student", negatives, step)
        ids = step.gather(step.ids)
        self.update("student", ids, step.gather(u.detach()))
        self.update("teacher", ids, step.gather(v.detach()))
        return losses

    def negatives_of(self, labels: Tensor, uniform: Tensor) -> Tensor:
        """Chooses training images of other classes than the labels, uniformly, with replacement.

        Args:
            labels: int64 [B].
            uniform: random numbers in [0,1), float64 [B,K].

        Returns:
            Positions in the training split, int64 [B,K].
        """
        start, own = self.class_start[labels, None], self.class_count[labels, None]
        position = (uniform * (len(self.by_class) - own)).long()
        return self.by_class[torch.where(position >= start, position + own, position)]

    def nce(self, anchor: Tensor, bank_of: str, negatives: Tensor, step: TrainingStep) -> Tensor:
        """Computes the losses [B] of one network's projections against the bank of the other.

        Args:
            anchor: projections of the batch, [B,d].
            bank_of: the other network, `student` or `teacher`.
            negatives: positions in the training split, int64 [B,K].
            step: the batch.
        """
        bank, normaliser = getattr(self, f"{bank_of}_bank"), getattr(self, f"{bank_of}_normaliser")
        # With every image, then of those that were drawn: to copy the rows of all pairs takes many times as long. Of a
        # copy, since the bank moves on before the backward pass.
        products = (anchor @ bank.clone().T).gather(1, torch.cat([step.ids[:, None], negatives], 1))  # [B,1+K]
        scores = (products / self.temperature).exp()
        first = step.mean(scores.detach()) * len(bank)
        normaliser.copy_(torch.where(normaliser == 0, first, normaliser))
        p = scores / normaliser
        noise = self.negatives / len(bank)
        tiny = 1e-7  # as in CRD's code
        positive = (p[:, 0] / (p[:, 0] + noise + tiny)).log()
        negative = (noise / (p[:, 1:] + noise + tiny)).log().sum(1)
        return -(positive + negative)

    @torch.no_grad()
    def update(self, name: str, ids: Tensor, projection: Tensor) -> None:
        """Mixes new projections into a bank and normalises them.

        Args:
            name: `student` or `teacher`.
            ids: positions in the training split, int64 [B].
            projection: unit vectors, [B,d].
        """
        bank = getattr(self, f"{name}_bank")
        mixed = self.momentum * bank[ids] + (1 - self.momentum) * projection
        bank[ids] = nn.functional.normalize(mixed, dim=1)


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer with torch's default initialisation, drawn from `generator`."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    bound = 1 / math.sqrt(inputs)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer
