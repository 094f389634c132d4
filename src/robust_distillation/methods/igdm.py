"""IGDM, indirect gradient distillation module (Lee et al., ICLR 2025): a term that other methods can add to their loss.

It is no method of its own: it is the setting `igdm` of rslad, ard, iad, adaad and saad.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from robust_distillation.losses import kl_divergence
from robust_distillation.methods.contract import TEACHER, Term, TrainingStep

if TYPE_CHECKING:
    from torch import Tensor


class IGDM(BaseModel):
    """Setting `igdm` of a method: adds alpha (e/E) KL(T(x') - T(2x - x') || S(x') - S(2x - x')) to its loss.

    S is the student, T the teacher, x a clean image, x' the adversarial image of the method, e the number of the epoch
    from 1, KL the divergence of the softmaxes of these differences of logits. Twice the product of a network's Jacobian
    and x' - x is close to such a difference, so that the student learns the teacher's gradients without computing one.
    The mirrored image 2x - x' is not clamped: it may leave [0,1]. It goes through S in train mode, right after x'.

    The released code that has this term alone (HongsinLee/saad, igdm.py) adds it to AdaAD. An entry of an experiment
    with `protocol: official` trains like it:

        igdm:
          method: adaad
          clean_pass: false
          igdm: {alpha: 1.0, ramp_epochs: 200}
          training:
            weight_decay: 2e-4
            kl_scale: sum
            inner_attack: {eps: 2/255, step_size: 8/255}
            selection: {by: pgd_trades}

    In that code eps and the size of a step stand in each other's place, so that it trains within 2/255; leave the line
    `inner_attack` out for 8/255 and 2/255. It selects no checkpoint and evaluates the last.

    Attributes:
        alpha: weight of the term at the end of the ramp, at least 0: 1 by default in the authors' code, which names 1
            for CIFAR-10 and 10 for CIFAR-100 as values.
        ramp_epochs: E, number of epochs in which the weight grows to alpha; it grows on after them. None: the epochs
            of the training. The authors' igdm.py has 200, whatever the number of epochs.

    Raises:
        pydantic.ValidationError: if a setting is unknown or its value is not allowed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    alpha: float = Field(1.0, ge=0)
    ramp_epochs: int | None = Field(None, ge=1)


def igdm_terms(
    settings: IGDM | None, step: TrainingStep, x: Tensor, student: Tensor, teacher: Tensor | None = None
) -> tuple[Term, ...]:
    """Computes the term `igdm` of a loss, with train-mode passes of the mirrored images through the student.

    Args:
        settings: alpha and the epochs of the ramp. None: nothing is computed.
        step: the batch. The network of the role `teacher` is called without gradient.
        x: adversarial images x' [B,C,H,W].
        student: the student's logits at x' in train mode, [B,K].
        teacher: the teacher's logits at x', [B,K]. None: they are computed.

    Returns:
        One term, a divergence with values [B] that are not reduced; none if `settings` is None.
    """
    if settings is None:
        return ()
    ask, mirrored = step.teacher[TEACHER], step.x - (x - step.x)
    teacher = ask(x).logits if teacher is None else teacher
    target = teacher - ask(mirrored).logits
    values = kl_divergence(target, student - step.student(mirrored, train=True).logits)
    weight = settings.alpha * step.epoch / (settings.ramp_epochs or step.epochs)
    return (Term("igdm", values, weight, divergence=True),)
