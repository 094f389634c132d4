"""LBGAT, learnable boundary guided adversarial training (Cui et al., ICCV 2021)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, field_validator

from robust_distillation import models
from robust_distillation.errors import UserError, short_repr, unknown
from robust_distillation.losses import cross_entropy, kl_divergence
from robust_distillation.methods.contract import Method, Official, Term, TrainingStep
from robust_distillation.settings import mistake


class LBGAT(Method):
    """LBGAT: minimises MSE(S(x'), M(x)) + CE(M(x), y) + beta KL(S(x) || S(x')), where x' maximises KL(S(x) || S(x')).

    S is the student, M the natural model, x a clean image, x' an adversarial image within the threat model around x, y
    the label, CE the cross-entropy, KL the divergence of the softmaxes, MSE the mean over the classes of the squared
    difference of logits. M starts from fresh weights and is trained together with the student, by the same optimiser
    and schedule, on clean images only; no teacher is needed. MSE has a gradient in both networks: S(x') is pulled
    towards M(x), and M towards decision boundaries that S can follow. S(x) in KL carries gradient, as in TRADES. The
    paper has beta = 0 and beta = 6.

    Attributes:
        terms: class constant: the loss terms, `guidance`, `natural` and (only if beta > 0) `divergence`.
        beta: weight of the divergence, at least 0.
        natural: architecture of M: its `name` and its arguments, such as {"name": "resnet", "depth": 18}. The default,
            a ResNet-18, is that of the authors' script.
        clean_pass: True: x goes through S in train mode even if beta = 0 gives it no weight, as in the authors' code,
            so that batch norm's running statistics see it.
    """

    terms: ClassVar = ("guidance", "natural", "divergence")
    beta: float = Field(6.0, ge=0)
    natural: dict[str, Any] = Field(
        {"name": "resnet", "depth": 18, "width": 64}, description="architecture of the natural model: name, arguments"
    )
    clean_pass: bool = Field(
        False,
        description="x goes through S in train mode even where beta = 0 gives it no weight, as in the authors' code: "
        "it moves batch norm's running statistics",
    )

    @field_validator("natural")
    @classmethod
    def _known_architecture(cls, natural: dict[str, Any]) -> dict[str, Any]:
        """Refuses an architecture or argument that does not exist, and completes the arguments by their defaults."""
        name, arguments = natural.get("name"), {key: value for key, value in natural.items() if key != "name"}
        try:
            known = models.arguments(name if isinstance(name, str) else "")
        except UserError:
            raise mistake(f"name: {unknown('architecture', name, models.names())}") from None
        for key, value in arguments.items():
            if key not in known:
                raise mistake(unknown("key", key, [*known, "name"]))
            kind, choices = known[key].type, known[key].choices
            if type(value).__name__ != kind or (choices and value not in choices) or (kind == "int" and value < 1):
                raise mistake(f"{key}: {short_repr(value)} is not allowed, but {choices or f'a positive {kind}'}")
        return {"name": name, **{key: arguments.get(key, argument.default) for key, argument in known.items()}}

    def networks(self, student: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Returns the architecture of the natural model, the setting `natural`; `student` is ignored."""
        return {"natural": self.natural}

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """Returns how the authors' code (dvlab-research/LBGAT) trains.

        `classes` and `architecture` are ignored: the code is for CIFAR-100 and WRN-34-10, and the same settings are
        used elsewhere. beta is 6; its script for LBGAT0 has beta 0. Quirks of that code: eps is 0.031 and the step
        0.007; the attack starts from 0.001 N(0,1), which is not clamped; x goes through the student even if beta is 0
        (clean_pass); the learning rate of the first epoch is 0.02. No setting expresses the last one: here a warm-up of
        one epoch stands in its place (schedule), with a mean rate of 0.05. That code keeps the checkpoints of all
        epochs and selects none: `best` is chosen by this project's rule, accuracy on the test set under PGD of 20 steps
        of 0.003.

        Returns:
            An Official: `training`, values of the section `training` of an experiment file, such as {"epochs": 200,
            "batch_size": 128}, and `settings`, values of the method's own settings. They are used with `protocol:
            official`.
        """
        return Official(
            training={
                "epochs": 100,
                "batch_size": 128,
                "learning_rate": 0.1,
                "weight_decay": 2e-4,
                "milestones": [75, 90],
                "schedule": {"warmup": 1.0},
                "inner_attack": {
                    "steps": 10,
                    "step_size": 0.007,
                    "eps": 0.031,
                    "start": "gaussian",
                    "project_start": False,
                },
                "selection": {"by": "pgd_trades"},
            },
            settings={"clean_pass": True},
        )

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes the terms of the loss on the batch `step`.

        S is the student, M the natural model, x the clean and x' the adversarial images, y the labels.

        Returns:
            Terms with values [B] that are not reduced: `guidance`, MSE(S(x'), M(x)); `natural`, CE(M(x), y); and, if
            beta > 0, `divergence`, KL(S(x) || S(x')) of weight beta.
        """
        x = step.attack(lambda x, logits, clean: kl_divergence(clean, logits), step.student(step.x).logits)
        adversarial = step.student(x, train=True).logits
        terms: tuple[Term, ...] = ()
        if self.beta:
            clean = step.student(step.x, train=True).logits
            terms = (Term("divergence", kl_divergence(clean, adversarial), self.beta, divergence=True),)
        elif self.clean_pass:
            step.student.update_statistics(step.x)
        natural = step.own["natural"](step.x, train=True).logits
        return (
            Term("guidance", (adversarial - natural).square().mean(1)),
            Term("natural", cross_entropy(natural, step.targets)),
            *terms,
        )
