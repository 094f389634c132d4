"""SAAD, sample-wise adaptive adversarial distillation (Lee & Chung, TMLR 2026)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from robust_distillation.losses import kl_divergence
from robust_distillation.methods.contract import TEACHER, Method, Official, TeacherCalls, Term, TrainingStep
from robust_distillation.methods.igdm import IGDM, igdm_terms

if TYPE_CHECKING:
    from torch import Tensor


class SAAD(Method):
    """SAAD: minimises w (KL(T(x') || S(x')) + I) + beta (1-v) KL(T(x) || S(x)), where x' maximises KL(T^(x') || S(x')).

    S is the student, T the teacher, x a clean image, x' an adversarial image within the threat model around x, y the
    label, KL the divergence of the softmaxes, I the term of `methods.igdm.IGDM`. T^ is the teacher linearised at x
    in the logit of y: T^_y(x') = T_y(x) + lambda g (x' - x) with g the gradient of T_y at x; its other logits are those
    of T(x). So the inner maximisation asks the teacher's network once, not in every step. The gradient flows through S
    and through T^.

    The weight w = scale (H - min H) has the entropy H of the teacher's prediction on x' and its minimum in the batch:
    images of which the teacher is sure count little, and that of the smallest H counts 0. In a batch of one image the
    loss is 0 but for the last term. v is w divided by its largest value in the batch. Teacher and weights carry no
    gradient. With beta > 0 the images of small w are learned clean. Defaults are those of the authors' code.

    Attributes:
        terms: class constant: the loss terms, `adversarial`, `igdm` (only with that setting) and `clean` (only if beta
            > 0).
        entropy_scale: scale of the weight w, above 0.
        order: order of the Renyi entropy H, above 0; 1 is Shannon's.
        log_constant: number added inside the logarithm of H: 1e-12 in the authors' code.
        slope: lambda, at least 0: factor of the linear part of T^. With 0, x' maximises KL(T(x) || S(x')) as in RSLAD.
        beta: weight of the clean term, at least 0; 0: no clean routing.
        igdm: settings of the term IGDM; None: no such term.
        clean_pass: True: x goes through S in train mode even if beta = 0, as in the authors' code, so that batch norm's
            running statistics see it.
    """

    terms: ClassVar = ("adversarial", "igdm", "clean")
    entropy_scale: float = Field(5.0, gt=0)
    order: float = Field(1.0, gt=0)
    log_constant: float = Field(0.0, ge=0)
    slope: float = Field(1.0, ge=0)
    beta: float = Field(0.0, ge=0)
    igdm: IGDM | None = IGDM()
    clean_pass: bool = Field(
        False,
        description="x goes through S in train mode even where beta = 0 gives it no weight, as in the authors' code: "
        "it moves batch norm's running statistics",
    )

    def teachers(self) -> dict[str, TeacherCalls]:
        """Declares one teacher (role `teacher`), which is called on adversarial images without gradient and on clean
        views with it.
        """
        return {TEACHER: TeacherCalls(live=True, gradient=True)}

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official:
        """Returns how the authors' code (HongsinLee/saad, saad.py and main.sh) trains.

        `classes`, the number of classes, decides alpha of IGDM as a comment in that code has it: 1 for 10 classes, else
        10. `architecture` is ignored. Quirks of that code: clean images go through the student, after the mirrored
        ones, although beta = 0 gives them no weight (clean_pass); 1e-12 inside the logarithm of the entropy
        (log_constant; one of its two versions has none); weight decay and momentum are constants, whatever its
        arguments say (the paper's text has a weight decay of 5e-4). The attack starts from 0.001 N(0,1), which is not
        clamped. From epoch 95 on the student is averaged after every epoch, and batch norm's statistics are estimated
        anew on clean training images (averaging); the average is what is evaluated. The baselines of that repository
        are not averaged, and three of them train within 2/255. The code evaluates the last epoch and selects none:
        `best` is chosen by this project's rule, accuracy on the test set under PGD of 20 steps of 0.003.

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
                "weight_decay": 2e-4,
                "milestones": [100, 150],
                "kl_scale": "sum",
                "averaging": {"name": "swa", "start": 94},
                "inner_attack": {
                    "steps": 10,
                    "step_size": 2 / 255,
                    "eps": 8 / 255,
                    "start": "gaussian",
                    "project_start": False,
                },
                "selection": {"by": "pgd_trades"},
            },
            settings={
                "log_constant": 1e-12,
                "clean_pass": True,
                "igdm": {"alpha": 1.0 if classes == 10 else 10.0},
            },
        )

    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes the terms of the loss on the batch `step`.

        S is the student, T the teacher, x the clean and x' the adversarial images. Minimum and maximum of the weights
        are those of the whole batch of all processes.

        Returns:
            Terms with values [B] that are not reduced: `adversarial`, w KL(T(x') || S(x')), with the setting `igdm` w
            times its term, and, if beta > 0, `clean`, (1-v) KL(T(x) || S(x)) of weight beta.
        """
        on_clean, gradient = step.once(lambda: self._linearised(step))
        x = step.attack(self._inner_objective, step.x, on_clean, gradient, step.labels)
        target = step.teacher[TEACHER](x).logits
        entropy = self._entropy(target)
        w = self.entropy_scale * (entropy - step.minimum(entropy))
        adversarial = step.student(x, train=True).logits
        terms = [Term("adversarial", w * kl_divergence(target, adversarial), divergence=True)]
        for term in igdm_terms(self.igdm, step, x, adversarial, target):
            terms.append(term._replace(values=w * term.values))
        if self.beta:
            distance = kl_divergence(on_clean, step.student(step.x, train=True).logits)
            v = w / (step.maximum(w) + 1e-8)
            terms.append(Term("clean", (1 - v) * distance, self.beta, divergence=True))
        elif self.clean_pass:
            step.student.update_statistics(step.x)
        return tuple(terms)

    @staticmethod
    def _linearised(step: TrainingStep) -> tuple[Tensor, Tensor]:
        """Computes T(x) [B,K] and the gradient of T_y at x, [B,C,H,W]."""
        import torch

        x = step.x.clone().requires_grad_()
        logits = step.teacher[TEACHER](x).logits
        [gradient] = torch.autograd.grad(logits.gather(1, step.labels[:, None]).sum(), x)
        return logits.detach(), gradient

    def _inner_objective(
        self, x: Tensor, logits: Tensor, clean: Tensor, target: Tensor, gradient: Tensor, labels: Tensor
    ) -> Tensor:
        rise = self.slope * (gradient * (x - clean)).flatten(1).sum(1, keepdim=True)
        return kl_divergence(target.scatter_add(1, labels[:, None], rise.to(target.dtype)), logits)

    def _entropy(self, logits: Tensor) -> Tensor:
        """Computes the entropy of the softmax of logits [B,K], [B]."""
        p, order, constant = logits.softmax(1), self.order, self.log_constant
        if order == 1:
            log_p = (p + constant).log() if constant else logits.log_softmax(1)
            return -(p * log_p).sum(1)
        return ((p**order).sum(1) + constant).log() / (1 - order)
