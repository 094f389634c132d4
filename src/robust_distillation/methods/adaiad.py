"""AdaIAD, adaptive introspective adversarial distillation (Huang et al., CVPR 2023)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from robust_distillation.losses import kl_divergence, true_class_probability
from robust_distillation.methods.contract import TEACHER, Method, Official, TeacherCalls, Term, TrainingStep


class AdaIAD(Method):
    """AdaIAD: minimises t^2 KL(T^t(x') || S^t(x')) + (1-w) KL(S(x) || S(x')), where x' maximises KL(T(x') || S(x')).

    S is the student, T the teacher, x a clean image, x' an adversarial image within the threat model around x, y the
    label, KL the divergence of the softmaxes, t the temperature, and ^t means softmax(logits / t). w = T_y(x')^beta is
    a power of the teacher's probability of y on x', without gradient: the less the teacher is right on x', the more the
    student's own clean prediction counts (introspection). S(x) carries gradient. It is IAD with the inner maximisation
    of AdaAD, whose gradient flows through both networks, so the teacher's network is called and its cache is not used.
    The formula, t and beta are those of the authors' code, which begins with 60 epochs of the teacher's term alone
    (`begin`).

    Attributes:
        terms: class constant: the loss terms, `teacher` and `introspection`.
        beta: exponent of the weight w, at least 0.
        temperature: t, above 0.
        begin: number of first epochs in which the loss is t^2 KL(T^t(x') || S^t(x')) alone: 60 in the authors' code.
        repeat_passes: True: x goes through S before x', too, and after the first `begin` epochs once more at the end,
            as in the authors' code, so that batch norm's running statistics see it again.

    Unknown:
        - Whether the paper's equation weighs the teacher's term by w, as that of IAD does. The code does not.
    """

    terms: ClassVar = ("teacher", "introspection")
    beta: float = Field(0.1, ge=0)
    temperature: float = Field(30.0, gt=0)
    begin: int = Field(0, ge=0, description="so many epochs of t^2 KL(T^t(x') || S^t(x')) alone come first")
    repeat_passes: bool = Field(
        False,
        description="x goes through S before x', too, and once introspection began once more at the end, as in the "
        "authors' code: batch norm's running statistics see it again",
    )

    def teachers(self) -> dict[str, TeacherCalls]:
        """Declares one teacher (role `teacher`), which is called on adversarial images, with and without gradient."""
        return {TEACHER: TeacherCalls(live=True, gradient=True)}

    def phases(self) -> tuple[int, ...]:
        """Returns the first epoch and, if `begin` > 0, the first epoch with introspection: (1,) or (1, begin + 1)."""
        return (1, self.begin + 1) if self.begin else (1,)

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """Returns how the authors' code (boyellow/AdaAD, `AdaAD_with_IAD1`) trains, with its main radius.

        `classes` and `architecture` are ignored. Quirks of that code: 60 epochs without introspection come first
        (begin); x goes through the student before x', and once more at the end for a cross-entropy of weight 0
        (repeat_passes); the attack starts from 0.001 N(0,1), which is not clamped. Divergences are summed over the
        classes on every dataset, while the same code averages AdaAD's over 10 classes. The radius is that of the
        README's main command; the code's own defaults are eps 16/255 and steps of 4/255 (inner_attack). `best` is
        chosen on the test set at every epoch, under PGD of 10 steps of 2/255.

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
            settings={"begin": 60, "repeat_passes": True},
        )

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes the terms of the loss on the batch `step`.

        S is the student, T the teacher, x the clean and x' the adversarial images, ^t means softmax(logits / t) at the
        temperature t, and w = T_y(x')^beta.

        Returns:
            Terms with values [B] that are not reduced: `teacher`, t^2 KL(T^t(x') || S^t(x')), and `introspection`,
            (1-w) KL(S(x) || S(x')). In the first `begin` epochs `introspection` is 0; x then goes through S for batch
            norm's running statistics only.
        """
        t, teacher = self.temperature, step.teacher[TEACHER]
        x = step.attack(lambda x, logits: kl_divergence(teacher(x).logits, logits))
        if self.repeat_passes:
            step.student.update_statistics(step.x)
        target, adversarial = teacher(x).logits, step.student(x, train=True).logits
        distance = Term("teacher", t**2 * kl_divergence(target, adversarial, t), divergence=True)
        if step.epoch <= self.begin:
            step.student.update_statistics(step.x)
            return distance, Term("introspection", distance.values.new_zeros(len(x)), divergence=True)
        clean = step.student(step.x, train=True).logits
        if self.repeat_passes:
            step.student.update_statistics(step.x)
        trust = true_class_probability(target, step.labels) ** self.beta
        own = (1 - trust) * kl_divergence(clean, adversarial)
        return distance, Term("introspection", own, divergence=True)
