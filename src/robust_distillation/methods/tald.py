"""TALD-style, the teacher's adversarial local distribution in knowledge distillation (after Nguyen-Duc et al., WACV
2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from robust_distillation.losses import cross_entropy, kl_divergence
from robust_distillation.methods.contract import TEACHER, Method, Official, TeacherCalls, Term, TrainingStep

if TYPE_CHECKING:
    from torch import Tensor

DEVIATION = 0.2667  # of CIFAR-100's pixels, mean over the channels; the authors' images are divided by it


class TALD(Method):
    """TALD-style: minimises gamma CE(S(x), y) + alpha t^2 KL(T^t(x) || S^t(x)) + beta [CE(S(z), y) - CE(T(z), y)]^2,
    where z is x or one of several x' near x, which follow the gradient of |T(x') - T(x)|^2 and a repulsion.

    S is the student, T the teacher, x a clean image, y its label, CE the cross-entropy, KL the divergence of the
    softmaxes, t the temperature, ^t means softmax(logits / t), and T stands for a softmax inside |.|. The method trains
    for clean accuracy: no image attacks the student, and `training.inner_attack` is not used.

    Each of the first `images` images of a batch has `particles` images x' = x + `radius` p, where p has length 1. They
    are one step of Stein variational gradient descent. d is a random direction of length 1, g the gradient in d of the
    mean squared difference between T(x + `probe` d) and T(x), and k(d, e) = exp(-|d - e|^2 / (2 sigma^2)) a kernel
    between all particles of the batch. p is the sum over all particles e of k(d, e) g(e) + grad_e k(d, e), divided by
    its length. x' and x go through S in one pass, so that they share batch norm's statistics. The square is averaged
    over all images x and x'. The plan of an experiment counts each call as one pass over the batch: too little for the
    student, which also gets x', and too much for the teacher, whose calls get x' alone.

    Attributes:
        terms: class constant: the loss terms, `cross_entropy`, `distillation` and `distribution`.
        gamma: weight of the cross-entropy, at least 0; 0.1 in the authors' command.
        alpha: weight of the divergence, at least 0; 0.9 in the authors' command.
        beta: weight of the squared difference of the cross-entropies, at least 0; 0.01 in the authors' command.
        temperature: t, above 0; 4 as in the authors' code.
        images: number of first images of the batch that have particles, at least 1; 10 as in the authors' code.
        particles: number n of x' for each of them, at least 1; 4 as in the authors' code.
        probe: distance from x at which the teacher's gradient is taken, in the L2 norm of an image in [0,1]; above 0.
        radius: distance of x' from x in the same norm, above 0.
        sigma: width of the kernel between directions of length 1, above 0; 0.001 as in the authors' code for 4
            particles.

    Unknown:
        - The authors' images are normalised by channel, ours lie in [0,1]. `probe` and `radius` are the authors' 10 and
          0.0005 times 0.2667, the mean over the channels of CIFAR-100's standard deviation; a ball there is an
          ellipsoid here.
        - The authors clamp x' to [-2.5, 2.5] after that normalisation, which no x' reaches; here it is [0,1].
        - Only the code was read, not the paper: what the paper says otherwise is not known.
    """

    terms: ClassVar = ("cross_entropy", "distillation", "distribution")
    gamma: float = Field(0.1, ge=0)
    alpha: float = Field(0.9, ge=0)
    beta: float = Field(0.01, ge=0)
    temperature: float = Field(4.0, gt=0)
    images: int = Field(10, ge=1, description="first images of each batch, which have particles")
    particles: int = Field(4, ge=1, description="images near each of them")
    probe: float = Field(10 * DEVIATION, gt=0, description="distance at which the teacher's gradient is taken, L2")
    radius: float = Field(0.0005 * DEVIATION, gt=0, description="distance of the particles from the image, L2")
    sigma: float = Field(1e-3, gt=0, description="width of the kernel between the particles' directions")

    def teachers(self) -> dict[str, TeacherCalls]:
        """Declares one teacher (role `teacher`), which is called on images near x, with and without gradient.

        Its cached logits of clean views (augmented training images) are read too.
        """
        return {TEACHER: TeacherCalls(cached=("logits",), live=True, gradient=True)}

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """Returns how the authors' code trains.

        The code (PotatoThanh/Adversarial-local-distribution-regularization-for-knowledge-distillation) is for
        CIFAR-100. `classes` is ignored. `architecture` sets the learning rate: 0.01 for MobileNetV2, 0.05 for others.
        The settings of the method are its defaults, those of the authors' command. Quirks of that code: only the first
        10 images of a batch have particles (images); the kernel's width is 10^(1-n) for n particles (sigma), so narrow
        that the kernel between different particles is 0 and they do not repel each other; particles of different images
        share one kernel. Its images are normalised, see the class. That code reports its last epoch, and also keeps the
        epoch with the highest accuracy on clean test images; `last` is that result. `best` is chosen by this project's
        rule, accuracy on the test set under APGD. The inner attack is never made.

        Returns:
            An Official: `training`, values of the section `training` of an experiment file, such as {"epochs": 200,
            "batch_size": 128}, and `settings`, values of the method's own settings. They are used with `protocol:
            official`.
        """
        return Official(
            training={
                "epochs": 240,
                "batch_size": 64,
                "learning_rate": 0.01 if architecture == "mobilenet_v2" else 0.05,
                "weight_decay": 5e-4,
                "milestones": [150, 180, 210],
                "kl_scale": "sum",
                "inner_attack": {"step_size": 2 / 255},
            },
        )

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes the terms of the loss on the batch `step`.

        S is the student, T the teacher, x the clean images, y their labels, ^t means softmax(logits / t) at the
        temperature t, and z is x or one of its particles x'.

        Returns:
            Terms with values [B] that are not reduced: `cross_entropy`, CE(S(x), y) of weight gamma, `distillation`,
            t^2 KL(T^t(x) || S^t(x)) of weight alpha, and `distribution`, [CE(S(z), y) - CE(T(z), y)]^2 of weight beta,
            where the squares of an image's particles are added to its own.
        """
        import torch

        t, target, teacher = self.temperature, step.cached().logits, step.teacher[TEACHER]
        first = min(self.images, step.total)  # of the batch; `here` of them are rows of this process
        here = max(0, min(first - step.rows.start, len(step.x)))
        near = step.once(lambda: self._particles(step, here, first))
        student = step.student(torch.cat([near, step.x]), train=True).logits
        logits = student[len(near) :]
        squares = (cross_entropy(logits, step.targets) - cross_entropy(target, step.targets)) ** 2
        if here:
            targets = torch.cat([step.targets[:here]] * self.particles)
            gap = cross_entropy(student[: len(near)], targets) - cross_entropy(teacher(near).logits, targets)
            added = squares[:here] + (gap**2).reshape(self.particles, here).sum(0)
            squares = torch.cat([added, squares[here:]])
        share = step.total / (step.total + self.particles * first)
        return (
            Term("cross_entropy", cross_entropy(logits, step.targets), self.gamma),
            Term("distillation", t**2 * kl_divergence(target, logits, t), self.alpha, divergence=True),
            Term("distribution", squares * share, self.beta),
        )

    def _particles(self, step: TrainingStep, here: int, first: int) -> Tensor:
        """Makes the images x' of the first `here` rows of this process.

        Args:
            step: the batch.
            here: number R of these rows.
            first: number of such rows in all processes.

        Returns:
            The images, [n R,C,H,W]: one of each row, then the second of each row, and so on.
        """
        import torch

        n, teacher = self.particles, step.teacher[TEACHER]
        draws = step.uniform(n, *step.x.shape[1:], dtype=step.x.dtype) - 0.5
        directions = _unit(draws.flatten(2))  # [B,n,D]
        scores = torch.zeros_like(directions)
        x = step.x[:here].repeat(n, 1, 1, 1)
        d = directions[:here].transpose(0, 1).flatten(0, 1)  # [n R,D]
        if here:
            moved = d.detach().requires_grad_()
            found = teacher(x + self.probe * moved.reshape(x.shape)).logits.softmax(1)
            known = step.cached().logits[:here].softmax(1).repeat(n, 1)
            distance = ((found - known) ** 2).sum() / (n * first * found.shape[1])
            [gradient] = torch.autograd.grad(distance, [moved])
            scores[:here] = gradient.reshape(n, here, -1).transpose(0, 1)
        every, their = (step.gather(values)[:first].flatten(0, 1) for values in (directions, scores))
        path = stein(d, every, their, self.sigma)
        return (x + self.radius * _unit(path).reshape(x.shape)).clamp(0, 1)


def _unit(vectors: Tensor) -> Tensor:
    """Divides vectors [...,D] by their length, with the constants of the authors' code."""
    vectors = vectors / (vectors.abs().amax(-1, keepdim=True) + 1e-12)
    return vectors / (vectors.square().sum(-1, keepdim=True) + 1e-6).sqrt()


def stein(particles: Tensor, every: Tensor, scores: Tensor, sigma: float) -> Tensor:
    """Computes the direction of Stein variational gradient descent: mean over e of k(d, e) g(e) + grad_e k(d, e).

    k(d, e) = exp(-|d - e|^2 / (2 sigma^2)) is the kernel; 1e-8 is added to 2 sigma^2, as in the authors' code.

    Args:
        particles: the particles d, [P,D], each of which is also in `every`.
        every: all particles e, [Q,D].
        scores: g(e), the gradient at each of them, [Q,D].
        sigma: width of the kernel, above 0.

    Returns:
        The direction of each of `particles`, [P,D].
    """
    import torch

    gamma = 1 / (2 * sigma**2 + 1e-8)
    distances = torch.cdist(particles, every, compute_mode="donot_use_mm_for_euclid_dist")
    kernel = (-gamma * distances**2).exp()
    repulsion = 2 * gamma * (kernel.sum(1, keepdim=True) * particles - kernel @ every)
    return (kernel @ scores + repulsion) / len(every)
