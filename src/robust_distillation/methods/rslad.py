"""RSLAD, robust soft label adversarial distillation (Zi et al., ICCV 2021), and the ablation of its soft labels."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from robust_distillation.losses import cross_entropy, kl_divergence
from robust_distillation.methods.contract import TEACHER, Method, Official, TeacherCalls, Term, TrainingStep
from robust_distillation.methods.igdm import IGDM, igdm_terms


class RSLAD(Method):
    """RSLAD: minimises (1-alpha) KL(T(x) || S(x)) + alpha KL(T(x) || S(x')), where x' maximises KL(T(x) || S(x')).

    S is the student, T the teacher, x a clean image, x' an adversarial image within the threat model around x, y the
    label, KL the divergence of the softmaxes. The formula is that of the paper's Table 1. (The paper's Eq. 3 prints x
    for x' in the inner maximisation; its Table 1 and its code have x'.) By default the teacher is asked on clean images
    only and no label y is used. alpha = 5/6 as in the authors' code.

    For ablations, each of the three losses can have other labels than the teacher's. With `hard` the loss is the
    cross-entropy with y, to which the scale of divergences (`kl_scale`) does not apply. With `student` it is KL(S(x) ||
    S(x')) as in TRADES, with gradient through S(x) in the outer loss.

    Attributes:
        terms: class constant: the loss terms, `clean`, `adversarial` and `igdm` (only with that setting).
        alpha: weight of the loss on x', in [0, 1].
        clean_labels: labels of the loss on x: `teacher` or `hard`.
        adversarial_labels: labels of the loss on x': `teacher`, `hard` or `student`.
        inner_labels: labels of the inner maximisation: `teacher`, `hard` or `student`.
        temperature: t, above 0: every divergence is t^2 KL of softmax(logits / t); the paper has none, t = 1.
        log_constant: number added to the target's probabilities inside the logarithm of the outer divergences: 1e-5 in
            the authors' code, where it changes the loss and no gradient.
        igdm: settings of a further term, see `methods.igdm.IGDM`; None: no such term. With it the teacher's network is
            called on adversarial images.
    """

    terms: ClassVar = ("clean", "adversarial", "igdm")
    alpha: float = Field(5 / 6, ge=0, le=1)
    clean_labels: Literal["teacher", "hard"] = "teacher"
    adversarial_labels: Literal["teacher", "hard", "student"] = "teacher"
    inner_labels: Literal["teacher", "hard", "student"] = "teacher"
    temperature: float = Field(1.0, gt=0)
    log_constant: float = Field(
        0.0,
        ge=0,
        description="added to the target's probabilities inside the logarithm of the outer divergences: 1e-5 in the "
        "authors' code, where it moves the loss and no gradient",
    )
    igdm: IGDM | None = None

    def teachers(self) -> dict[str, TeacherCalls]:
        """Declares one teacher (role `teacher`), of which the cached logits of clean views are read.

        A clean view is an augmented training image. They are not read if none of the three losses has the teacher's
        labels. With the setting `igdm` its network is called on adversarial images without gradient. Without any of
        both there is no teacher.
        """
        labels = (self.clean_labels, self.adversarial_labels, self.inner_labels)
        calls = TeacherCalls(cached=("logits",) * ("teacher" in labels), live=self.igdm is not None)
        return {TEACHER: calls} if calls.cached or calls.live else {}

    def needs_labels(self) -> bool:
        """Returns True if any of the three losses (clean, adversarial, inner maximisation) has hard labels."""
        return "hard" in (self.clean_labels, self.adversarial_labels, self.inner_labels)

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """Returns how the authors' code (zibojia/RSLAD) trains, the same for both of its students.

        `classes` and `architecture` are ignored. Quirks of that code: the divergence is averaged over batch and
        classes, on CIFAR-100 times 10, so on both datasets it is a tenth of the sum over the classes (kl_scale); 1e-5
        inside the logarithm (log_constant); the attack starts from 0.001 N(0,1), which is not clamped; `best` is chosen
        on the test set under PGD of 20 steps of 0.003, at every 20th epoch and from 215 on at every epoch.

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
                "selection": {"by": "pgd_trades", "every": 20, "every_epoch_after": 214},
            },
            settings={"log_constant": 1e-5},
        )

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes the terms of the loss on the batch `step`.

        S is the student, T the teacher, x the clean and x' the adversarial images.

        Returns:
            Terms with values [B] that are not reduced: `clean`, KL(T(x) || S(x)) of weight 1-alpha, and `adversarial`,
            KL(T(x) || S(x')) of weight alpha, or the losses with the other labels that the settings choose;
            with the setting `igdm` its term.
        """
        teacher = step.cached().logits if self.cached else None
        inner = {
            "hard": lambda: step.targets,
            "teacher": lambda: teacher,
            "student": lambda: step.student(step.x).logits,
        }
        x = step.attack(self._inner_objective, inner[self.inner_labels]())
        adversarial = step.student(x, train=True).logits
        matching = igdm_terms(self.igdm, step, x, adversarial)
        clean = step.student(step.x, train=True).logits
        targets = {"hard": step.targets, "teacher": teacher, "student": clean}
        terms = (
            Term(
                name,
                self._divergence(logits, labels, targets[labels], self.log_constant),
                weight,
                divergence=labels != "hard",
            )
            for name, logits, labels, weight in (
                ("clean", clean, self.clean_labels, 1 - self.alpha),
                ("adversarial", adversarial, self.adversarial_labels, self.alpha),
            )
        )
        return (*terms, *matching)

    def _inner_objective(self, x, logits, target):
        return self._divergence(logits, self.inner_labels, target)

    def _divergence(self, logits, labels: str, target, constant: float = 0.0):
        """Computes one of the three losses, [B], of the student's logits [B,K].

        Args:
            logits: the student's logits.
            labels: which labels the loss has: `hard`, `teacher` or `student`.
            target: int64 [B] for `hard`, else the logits [B,K] of the teacher or of the student.
            constant: added to the target's probabilities inside the logarithm.
        """
        if labels == "hard":
            return cross_entropy(logits, target)
        t = self.temperature
        return t**2 * kl_divergence(target, logits, t, target_constant=constant)
