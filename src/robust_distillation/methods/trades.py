"""TRADES (Zhang et al., ICML 2019)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from robust_distillation.losses import cross_entropy, kl_divergence
from robust_distillation.methods.contract import Batch, Method, Needs, Term


class TRADES(Method):
    """min CE(S(x), y) + beta KL(S(x) || S(x')), where x' maximises that divergence.

    S(x) in the divergence carries gradient: detaching it is a known way to lose robustness.
    """

    needs: ClassVar = Needs(clean=True, adversarial=True, reference=True)
    beta: float = Field(6.0, ge=0)

    def inner_objective(self, logits, batch: Batch):
        return kl_divergence(batch.reference.logits, logits)

    def loss_terms(self, batch: Batch, state=None):
        clean, adversarial = batch.clean.logits, batch.adversarial.logits
        return (
            Term("cross_entropy", cross_entropy(clean, batch.labels)),
            Term("divergence", kl_divergence(clean, adversarial), self.beta, divergence=True),
        )
