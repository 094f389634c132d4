"""RSLAD, robust soft label adversarial distillation (Zi et al., ICCV 2021), and the ablation of its soft labels."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from robust_distillation.losses import cross_entropy, kl_divergence
from robust_distillation.methods.contract import Batch, Method, Needs, Official, Term


class RSLAD(Method):
    """min (1-alpha) KL(T(x) || S(x)) + alpha KL(T(x) || S(x')), where x' maximises KL(T(x) || S(x')) (Table 1).

    The teacher sees clean images only and no hard label is used. alpha = 5/6 as in the authors' code. (The paper's
    Eq. 3 prints x for x' in the inner maximisation; its Table 1 and its code have x'.)

    Each of the three losses can take other labels than the teacher's: `hard` makes it the cross-entropy with y, which
    no KL scale touches, and `student` KL(S(x) || S(x')) as in TRADES, with gradient through S(x) in the outer loss.
    With a temperature t every divergence is t^2 KL(.^t || .^t); the paper has none.
    """

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

    @property
    def needs(self) -> Needs:
        taught = "teacher" in (self.clean_labels, self.adversarial_labels, self.inner_labels)
        own = self.inner_labels == "student"
        return Needs(clean=True, adversarial=True, reference=own, teacher_logits=taught)

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """The authors' code (zibojia/RSLAD), the same for both students. Its quirks: the divergence is averaged over
        batch and classes, on CIFAR-100 times 10, so on both a tenth of its sum (kl_scale); 1e-5 inside the logarithm
        (log_constant); the attack starts from 0.001 N(0,1), which is not clamped; `best` is looked for on the test set
        under 20 steps of 0.003, at every 20th epoch and from 215 on at every one."""
        return Official(
            training={
                "epochs": 300,
                "batch_size": 128,
                "learning_rate": 0.1,
                "weight_decay": 2e-4,
                "milestones": [215, 260, 285],
                "kl_scale": "tenth",
                "passes": ["adversarial", "clean"],
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

    def inner_objective(self, logits, batch: Batch):
        return self._loss(logits, self.inner_labels, batch, batch.reference)

    def loss_terms(self, batch: Batch, state=None):
        passes = (
            ("clean", batch.clean, self.clean_labels, 1 - self.alpha),
            ("adversarial", batch.adversarial, self.adversarial_labels, self.alpha),
        )
        return tuple(
            Term(
                name,
                self._loss(student.logits, labels, batch, batch.clean, self.log_constant),
                weight,
                divergence=labels != "hard",
            )
            for name, student, labels, weight in passes
        )

    def _loss(self, logits, labels: str, batch: Batch, own, constant: float = 0.0):
        if labels == "hard":
            return cross_entropy(logits, batch.labels)
        target, t = (own if labels == "student" else batch.teacher).logits, self.temperature
        return t**2 * kl_divergence(target, logits, t, target_constant=constant)
