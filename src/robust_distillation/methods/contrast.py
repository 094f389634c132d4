"""Noise-contrastive estimation against memory banks, the machinery of CRD (Tian et al., ICLR 2020)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from robust_distillation.methods.contract import TEACHER, Sizes, TrainingStep


class MemoryContrast(nn.Module):
    """Noise-contrastive loss between the features of a student and a teacher, against memory banks, as in CRD.

    Each of the two networks has a projection head (a linear layer to d values, then division by the length), which is
    trained. Each also has a memory bank, a buffer with a running mean of the projections of every training image. The
    score of two projections u and v is exp(u.v / temperature). P is a score divided by the normaliser Z, which the
    first batch fixes at (mean score) x (number of training images). With n training images, K negatives (images of
    other classes), and noise p = 1/n, the loss of image i is
        L_i = -log( P_pos / (P_pos + K p) ) - sum_neg log( K p / (P_neg + K p) ).
    P_pos is between the projection of image i by one network and the entry of image i in the bank of the other network;
    each P_neg is between the same projection and the entry of a negative. L_i is computed once with the student's
    projection against the teacher's bank and once with the teacher's projection against the student's bank; the two are
    summed. CRD's code draws the negatives without replacement if there are K of them, this module with replacement: the
    same expectation at a fraction of the cost.

    A call can choose other positives than the image itself, and the teacher as the only anchor: see `forward`.
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
            sizes: sizes of data and networks, a Sizes; the fields `samples` (number of training images), `classes`,
                `labels` (int64 [samples]), `student_features` and `teacher_features["teacher"]` (widths of the features
                of the two networks) are used.
            dimension: width d of the projections.
            negatives: number K of negatives (images of other classes) that are drawn for an image.
            temperature: temperature of the scores, above 0.
            momentum: share of the old projection in an updated row of a bank, in [0, 1).
            generator: the source of the random initial values.

        Raises:
            ValueError: if the training images are of fewer than two classes.
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

    def forward(
        self, student: Tensor, teacher: Tensor, step: TrainingStep, positive: str = "instance", sides: str = "both"
    ) -> Tensor:
        """Computes the losses of a batch, then updates both banks in place with the projections of all processes.

        Args:
            student: features of the student, [B,Ds].
            teacher: features of the teacher, [B,Dt].
            step: the batch of which the features are. `step.ids` (positions in the training split), `step.labels` and
                its random numbers are used.
            positive: the positive of an image: the image itself (`instance`) or a random image of its class (`class`),
                which may be the image itself.
            sides: `both`: the two losses of the class's docstring; positives are entries of the banks. `class` draws
                one training image for both losses. `teacher_anchor`: the loss of the teacher's projection against the
                student's bank alone. A bank is constant, so with a positive from it the student would get no gradient:
                the positive is the student's projection of an image of this batch, and `class` draws an image of the
                batch of all processes.

        Returns:
            [B]: for each image the loss of the student's projection against the teacher's bank plus that of the
            teacher's projection against the student's bank, or the latter alone.
        """
        u = nn.functional.normalize(self.student_head(student), dim=1)
        v = nn.functional.normalize(self.teacher_head(teacher), dim=1)
        negatives = self.negatives_of(step.labels, step.uniform(self.negatives, dtype=torch.float64))
        if sides == "teacher_anchor":
            losses = self.nce(v, "student", negatives, step, self.of_batch(u, positive, step))
        else:
            ids = step.ids
            if positive == "class":
                ids = self.image_of_class(step.labels, step.uniform(dtype=torch.float64))
            rows = torch.cat([ids[:, None], negatives], 1)
            losses = self.nce(u, "teacher", rows, step) + self.nce(v, "student", rows, step)
        ids = step.gather(step.ids)
        self.update("student", ids, step.gather(u.detach()))
        self.update("teacher", ids, step.gather(v.detach()))
        return losses

    def of_batch(self, projection: Tensor, positive: str, step: TrainingStep) -> Tensor:
        """Chooses for each image of the batch the positive among the projections of the batch. Gradients flow.

        Args:
            projection: projections of the images of the batch, [B,d].
            positive: `instance`: the projection of the image itself. `class`: that of an image of its class, drawn
                uniformly from the batch of all processes.
            step: the batch. Its labels and, for `class`, its random numbers are used.

        Returns:
            [B,d].
        """
        if positive == "instance":
            return projection
        same = step.labels[:, None] == step.gather(step.labels)  # [B, images of all processes]
        number = (step.uniform(dtype=torch.float64) * same.sum(1)).long()  # of the chosen image among these
        chosen = (same.cumsum(1) <= number[:, None]).sum(1)
        return step.gather(projection)[chosen]

    def image_of_class(self, labels: Tensor, uniform: Tensor) -> Tensor:
        """Chooses a training image of each label's class, uniformly.

        Args:
            labels: classes of the images of the batch, int64 [B].
            uniform: random numbers in [0, 1), float64 [B].

        Returns:
            Positions in the training split, int64 [B].
        """
        return self.by_class[self.class_start[labels] + (uniform * self.class_count[labels]).long()]

    def negatives_of(self, labels: Tensor, uniform: Tensor) -> Tensor:
        """Chooses training images of other classes than the labels, uniformly, with replacement.

        Args:
            labels: classes of the images of the batch, int64 [B].
            uniform: random numbers in [0, 1), float64 [B,K], one for each negative.

        Returns:
            Positions of the negatives in the training split, int64 [B,K].
        """
        start, own = self.class_start[labels, None], self.class_count[labels, None]
        position = (uniform * (len(self.by_class) - own)).long()
        return self.by_class[torch.where(position >= start, position + own, position)]

    def nce(
        self, anchor: Tensor, bank_of: str, rows: Tensor, step: TrainingStep, positive: Tensor | None = None
    ) -> Tensor:
        """Computes the losses of one network's projections against the memory bank of the other network.

        The first call for a bank sets its normaliser in place.

        Args:
            anchor: projections of the batch, unit vectors [B,d].
            bank_of: the other network, `student` or `teacher`.
            rows: positions in the training split of the images whose entries in the bank are compared, int64: the
                positive and the negatives [B,1+K], or the negatives [B,K] if `positive` is a tensor.
            step: the batch, for the mean over all processes.
            positive: projections of the positives by the other network, unit vectors [B,d]. None: the positives are the
                first of `rows`.

        Returns:
            The losses L_i of the class's formula, [B], not averaged.
        """
        bank, normaliser = getattr(self, f"{bank_of}_bank"), getattr(self, f"{bank_of}_normaliser")
        # With every image, then of those that were drawn: to copy the rows of all pairs takes many times as long. Of a
        # copy, since the bank moves on before the backward pass.
        products = (anchor @ bank.clone().T).gather(1, rows)
        if positive is not None:
            products = torch.cat([(anchor * positive).sum(1, keepdim=True), products], 1)  # [B,1+K]
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
        """Mixes new projections into a memory bank, in place, and normalises the changed rows to unit length.

        Args:
            name: the network whose bank is updated, `student` or `teacher`.
            ids: positions of the images in the training split, int64 [B].
            projection: their new projections, unit vectors [B,d].
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
