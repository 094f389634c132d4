"""CGARD-style, adversarial robustness distillation with a constrained joint search (after Li et al. 2026)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from robust_distillation.errors import UserError
from robust_distillation.losses import cross_entropy, kl_divergence
from robust_distillation.methods.contract import TEACHER, Method, TeacherCalls, Term, TrainingStep

if TYPE_CHECKING:
    from torch import Tensor


class CGARD(Method):
    """CGARD-style: minimises (1-alpha) KL(T(x'_T) || S(x'_S)) + alpha KL(T(x'_S) || S(x'_S)), where x'_S and x'_T
    together maximise 1/2 [KL(S(x'_S) || T(x'_T)) + KL(T(x'_T) || S(x'_S))] with CE(T(x'_T), y) <= CE(T(x), y).

    S is the student, T the teacher, x a clean image, x'_S and x'_T two adversarial images within the threat model
    around x, y the label, CE the cross-entropy, KL the divergence of the softmaxes. Both images start from noise of
    their own. In each step of the search both follow the gradient of the same objective, x'_S through S and x'_T
    through T. After each step, x'_T is set back to x wherever T classifies it worse than x. So the teacher is asked
    where it is at least as good as on clean images. S and T are in eval mode during the search. alpha = 0.7 as in the
    paper.

    Attributes:
        terms: class constant: the loss terms, `joint` (the teacher at x'_T) and `adversarial` (the teacher at x'_S).
        alpha: weight of the loss with the teacher at x'_S, in [0, 1].
        constrained: True: x'_T is set back to x where CE(T(x'_T), y) > CE(T(x), y). False: the search has no
            constraint.

    Unknown:
        - No released code was found, so there are no official settings. Only the text of the paper was read.
        - The scale of the divergence is not stated: `training.kl_scale` decides it.
        - The mode of batch norm during the search and in the loss is not stated: here eval mode and train mode.
        - Whether clean images go through the student in train mode is not stated: here they do not.
        - Whether x'_T is also set back after the last step is not stated: here it is.
    """

    terms: ClassVar = ("joint", "adversarial")
    alpha: float = Field(0.7, ge=0, le=1)
    constrained: bool = Field(True, description="x'_T is set back to x wherever the teacher classifies it worse than x")

    def teachers(self) -> dict[str, TeacherCalls]:
        """Declares one teacher (role `teacher`), which is called on adversarial images, with and without gradient.

        With `constrained`, its cached logits of clean views (augmented training images) are read too.
        """
        return {TEACHER: TeacherCalls(cached=("logits",) * self.constrained, live=True, gradient=True)}

    def needs_labels(self) -> bool:
        """Returns True if the search is constrained: the constraint compares cross-entropies with the label."""
        return self.constrained

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes the terms of the loss on the batch `step`.

        S is the student, T the teacher, x'_S and x'_T the two adversarial images.

        Returns:
            Terms with values [B] that are not reduced: `joint`, KL(T(x'_T) || S(x'_S)) of weight 1-alpha, and
            `adversarial`, KL(T(x'_S) || S(x'_S)) of weight alpha.

        Raises:
            UserError: `training.inner_attack.mode` is `train`.
        """
        own, its = step.once(lambda: self._search(step))
        teacher, logits = step.teacher[TEACHER], step.student(own, train=True).logits
        return (
            Term("joint", kl_divergence(teacher(its).logits, logits), 1 - self.alpha, divergence=True),
            Term("adversarial", kl_divergence(teacher(own).logits, logits), self.alpha, divergence=True),
        )

    def _search(self, step: TrainingStep) -> tuple[Tensor, Tensor]:
        """Makes x'_S and x'_T, [B,C,H,W] each."""
        import torch

        if step.inner.mode != "eval":
            raise UserError("cgard: its search is done in eval mode; leave training.inner_attack.mode out")
        teacher = step.teacher[TEACHER]
        own, its = (step.x + step.starting_noise() for _ in range(2))
        if step.inner.project_start:
            own, its = (step.ascend(image, torch.zeros_like(image)) for image in (own, its))
        clean = cross_entropy(step.cached().logits, step.targets) if self.constrained else None
        for _ in range(step.inner.steps):
            own, its = (image.detach().requires_grad_() for image in (own, its))
            student, taught = step.student(own).logits, teacher(its).logits
            distance = (kl_divergence(student, taught) + kl_divergence(taught, student)) / 2
            along, across = torch.autograd.grad(distance.sum(), [own, its])
            own, its = step.ascend(own, along), step.ascend(its, across)
            if self.constrained:
                worse = cross_entropy(teacher(its).logits, step.targets) > clean
                its = torch.where(worse[:, None, None, None], step.x, its)
        return own, its
