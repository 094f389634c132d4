"""AdaAD, adaptive adversarial distillation (Huang et al., CVPR 2023)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from robust_distillation.losses import kl_divergence
from robust_distillation.methods.contract import TEACHER, Method, Official, TeacherCalls, Term, TrainingStep
from robust_distillation.methods.igdm import IGDM, igdm_terms


class AdaAD(Method):
    """AdaAD: minimises alpha KL(T(x') || S(x')) + (1-alpha) KL(T(x) || S(x)), where x' maximises KL(T(x') || S(x')).

    S is the student, T the teacher, x a clean image, x' an adversarial image within the threat model around x, KL the
    divergence of the softmaxes. The gradient of the inner maximisation flows through both networks, so the teacher's
    network is called; cached outputs cannot be used. No labels are used. alpha = 1 as in the authors' code.

    Attributes:
        terms: class constant: the loss terms, `clean` (only if alpha < 1), `adversarial` and `igdm` (only with that
            setting).
        alpha: weight of the divergence on x', in [0, 1].
        clean_pass: True: x goes through S in train mode even if alpha = 1 gives it no weight, as in the authors' code,
            so that batch norm's running statistics see it.
        igdm: settings of a further term, see `methods.igdm.IGDM`; None: no such term.
    """

    terms: ClassVar = ("clean", "adversarial", "igdm")
    alpha: float = Field(1.0, ge=0, le=1)
    clean_pass: bool = Field(
        False,
        description="x goes through S in train mode even where alpha = 1 gives it no weight, as in the authors' code: "
        "it moves batch norm's running statistics",
    )
    igdm: IGDM | None = None

    def teachers(self) -> dict[str, TeacherCalls]:
        """Declares one teacher (role `teacher`), which is called on adversarial images, with and without gradient.

        If alpha < 1, its cached logits of clean views (augmented training images) are read too.
        """
        return {TEACHER: TeacherCalls(cached=("logits",) * (self.alpha < 1), live=True, gradient=True)}

    def needs_labels(self) -> bool:
        """Returns False: both terms compare the student with the teacher."""
        return False

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """Returns how the authors' code (boyellow/AdaAD) trains, with the radius of its main command.

        `classes`, the number of classes, sets the scale of the divergence (kl_scale): averaged over batch and classes
        for 10 classes, summed over the classes for others. `architecture` is ignored. Other quirks of that code: clean
        images go through the student, before the adversarial ones, although they have no weight in the loss
        (clean_pass); the attack starts from 0.001 N(0,1), which is not clamped. `best` is chosen on the test set under
        PGD of 10 steps of 2/255.

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
                "kl_scale": "mean" if classes == 10 else "sum",
                "inner_attack": {
                    "steps": 10,
                    "step_size": 2 / 255,
                    "eps": 8 / 255,
                    "start": "gaussian",
                    "project_start": False,
                },
                "selection": {"by": "pgd10"},
            },
            settings={"clean_pass": True},
        )

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes the terms of the loss on the batch `step`.

        S is the student, T the teacher, x the clean and x' the adversarial images.

        Returns:
            Terms with values [B] that are not reduced: if alpha < 1, `clean`, KL(T(x) || S(x)) of weight 1-alpha; then
            `adversarial`, KL(T(x') || S(x')) of weight alpha; with the setting `igdm` its term.
        """
        teacher = step.teacher[TEACHER]
        x = step.attack(lambda x, logits: kl_divergence(teacher(x).logits, logits))
        terms = []
        if self.alpha < 1:
            distance = kl_divergence(step.cached().logits, step.student(step.x, train=True).logits)
            terms = [Term("clean", distance, 1 - self.alpha, divergence=True)]
        elif self.clean_pass:
            step.student.update_statistics(step.x)
        target, adversarial = teacher(x).logits, step.student(x, train=True).logits
        terms += [Term("adversarial", kl_divergence(target, adversarial), self.alpha, divergence=True)]
        return (*terms, *igdm_terms(self.igdm, step, x, adversarial, target))
