"""RSLAD, robust soft label adversarial distillation (Zi et al., ICCV 2021)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from robust_distillation.losses import kl_divergence
from robust_distillation.methods.contract import Batch, Method, Needs, Term


class RSLAD(Method):
    """min (1-alpha) KL(T(x) || S(x)) + alpha KL(T(x) || S(x')), where x' maximises KL(T(x) || S(x')) (Table 1).

    The teacher sees clean images only and no hard label is used. alpha = 5/6 as in the authors' code. (The paper's
    Eq. 3 prints x for x' in the inner maximisation; its Table 1 and its code have x'.)
    """

    needs: ClassVar = Needs(clean=True, adversarial=True, teacher_logits=True)
    alpha: float = Field(5 / 6, ge=0, le=1)

    def inner_objective(self, logits, batch: Batch):
        return kl_divergence(batch.teacher.logits, logits)

    def loss_terms(self, batch: Batch, state=None):
        target = batch.teacher.logits
        return (
            Term("clean", kl_divergence(target, batch.clean.logits), 1 - self.alpha, divergence=True),
            Term("adversarial", kl_divergence(target, batch.adversarial.logits), self.alpha, divergence=True),
        )
