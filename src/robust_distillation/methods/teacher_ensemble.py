"""Teacher ensemble: RSLAD's losses (Zi et al., ICCV 2021) with the mean of several teachers as the teacher."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from robust_distillation.losses import kl_divergence
from robust_distillation.methods.contract import Method, TeacherCalls, Term, TrainingStep

Role = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]  # a name as in `roles:` of an experiment


class TeacherEnsemble(Method):
    """Teacher ensemble: minimises (1-alpha) KL(Q(x) || S(x)) + alpha KL(Q(x) || S(x')), where x' maximises KL(Q(x) ||
    S(x')) and Q is the mean of several teachers.

    S is the student, x a clean image, x' an adversarial image within the threat model around x, KL the divergence of
    the softmaxes. All but Q is RSLAD's: with equal teachers the method is RSLAD. The teachers are asked on clean images
    only, and no label y is used. They may have different architectures, such as a convolutional network and a
    transformer. An experiment gives each member a teacher, such as `both: {roles: {first: wide, second: vit}}`.

    This is not DARHT (Deng et al. 2024), which also distils from teachers of different architectures: there the student
    has a map that predicts each teacher's logits.

    Attributes:
        terms: class constant: the loss terms, `clean` and `adversarial`.
        members: names (roles) under which the teachers are called: 2 to 8 different ones. Default: `first`, `second`.
        mean: what is averaged over the teachers: their `probabilities` (softmax), or their `logits` before the softmax.
            The mean of logits is the normalised geometric mean of the probabilities; a teacher with larger logits then
            counts for more.
        alpha: weight of the loss on x', in [0, 1]; 5/6 as in RSLAD's code.

    Unknown:
        - The equations of DARHT were not found, so no claim of that paper applies to this method.
    """

    terms: ClassVar = ("clean", "adversarial")
    members: list[Role] = Field(
        ["first", "second"],
        min_length=2,
        max_length=8,
        description="roles of the teachers: each gets its teacher in an entry such as both: {roles: {first: A, "
        "second: B}}",
    )
    mean: Literal["probabilities", "logits"] = "probabilities"
    alpha: float = Field(5 / 6, ge=0, le=1)

    @field_validator("members")
    @classmethod
    def _different(cls, members: list[str]) -> list[str]:
        if len(set(members)) < len(members):
            raise ValueError("a role stands there twice; give each teacher its own")
        return members

    def teachers(self) -> dict[str, TeacherCalls]:
        """Declares one teacher for each of `members`, of which the cached logits of clean views are read.

        A clean view is an augmented training image.
        """
        return {role: TeacherCalls(cached=("logits",)) for role in self.members}

    def needs_labels(self) -> bool:
        """Returns False: both terms compare the student with the teachers."""
        return False

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes the terms of the loss on the batch `step`.

        S is the student, Q the mean of the teachers, x the clean and x' the adversarial images.

        Returns:
            Terms with values [B] that are not reduced: `clean`, KL(Q(x) || S(x)) of weight 1-alpha, and `adversarial`,
            KL(Q(x) || S(x')) of weight alpha.
        """
        logits = [step.cached(role).logits for role in self.members]
        if self.mean == "logits":
            target = sum(logits) / len(logits)
        else:
            target = (sum(own.softmax(1) for own in logits) / len(logits)).log()
        x = step.attack(lambda x, logits, target: kl_divergence(target, logits), target)
        adversarial, clean = (step.student(images, train=True).logits for images in (x, step.x))
        return (
            Term("clean", kl_divergence(target, clean), 1 - self.alpha, divergence=True),
            Term("adversarial", kl_divergence(target, adversarial), self.alpha, divergence=True),
        )
