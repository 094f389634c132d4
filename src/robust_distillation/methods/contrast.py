"""Noise-contrastive estimation against memory banks, the machinery of CRD (Tian et al., ICLR 2020)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from robust_distillation.device import to_device
from robust_distillation.methods.contract import Sizes


class MemoryContrast(nn.Module):
    """Two projection heads, and for each network a bank of every training image's last projection.

    The score of a pair is exp(u.v / temperature), P its score over the normaliser Z, which the first batch fixes at
    (mean score) x (number of images). With n images, K negatives and noise p = 1/n,
        L_i = -log( P_pos / (P_pos + K p) ) - sum_neg log( K p / (P_neg + K p) ),
    once with the student's projection against the teacher's bank and once the other way round; the two are summed.
    CRD's code draws the negatives without replacement where there are K of them, this with replacement: the same
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
        super().__init__()
        self.negatives, self.temperature, self.momentum = negatives, temperature, momentum
        self.student_head = _linear(sizes.student_features, dimension, generator)
        self.teacher_head = _linear(sizes.teacher_features, dimension, generator)
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

    def forward(
        self, student: Tensor, teacher: Tensor, index: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Losses [B] from features of the student [B,Ds] and of the teacher [B,Dt]; then updates the banks."""
        u = nn.functional.normalize(self.student_head(student), dim=1)
        v = nn.functional.normalize(self.teacher_head(teacher), dim=1)
        others = self.draw_negatives(labels, generator)
        losses = self.nce(u, "teacher", index, others) + self.nce(v, "student", index, others)
        self.update("student", index, u.detach())
        self.update("teacher", index, v.detach())
        return losses

    def draw_negatives(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Indices [B,K] of training images, uniform over those of other classes than `labels` [B]."""
        start, own = self.class_start[labels, None], self.class_count[labels, None]
        draws = torch.rand(len(labels), self.negatives, generator=generator, dtype=torch.float64)
        uniform = to_device(draws, labels.device)
        position = (uniform * (len(self.by_class) - own)).long()
        return self.by_class[torch.where(position >= start, position + own, position)]

    def nce(self, anchor: Tensor, bank_of: str, index: Tensor, others: Tensor) -> Tensor:
        """Losses [B] of the anchors [B,d] against the bank of the other network."""
        bank, normaliser = getattr(self, f"{bank_of}_bank"), getattr(self, f"{bank_of}_normaliser")
        # With every image, then of those that were drawn: to copy the rows of all pairs takes many times as long. Of a
        # copy, since the bank moves on before the backward pass.
        products = (anchor @ bank.clone().T).gather(1, torch.cat([index[:, None], others], 1))  # [B,1+K]
        scores = (products / self.temperature).exp()
        first = scores.detach().mean() * len(bank)
        normaliser.copy_(torch.where(normaliser == 0, first, normaliser))
        p = scores / normaliser
        noise = self.negatives / len(bank)
        tiny = 1e-7  # as in CRD's code
        positive = (p[:, 0] / (p[:, 0] + noise + tiny)).log()
        negative = (noise / (p[:, 1:] + noise + tiny)).log().sum(1)
        return -(positive + negative)

    @torch.no_grad()
    def update(self, name: str, index: Tensor, projection: Tensor) -> None:
        bank = getattr(self, f"{name}_bank")
        mixed = self.momentum * bank[index] + (1 - self.momentum) * projection
        bank[index] = nn.functional.normalize(mixed, dim=1)


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer with torch's default initialisation, drawn from `generator`."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    bound = 1 / math.sqrt(inputs)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer
