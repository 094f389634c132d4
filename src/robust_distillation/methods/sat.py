"""SAT, standard adversarial training (Madry et al., ICLR 2018)."""

from __future__ import annotations

from typing import ClassVar

from robust_distillation.losses import cross_entropy
from robust_distillation.methods.contract import Batch, Method, Needs, Term


class SAT(Method):
    """min CE(S(x'), y), where x' maximises CE(S(x'), y)."""

    needs: ClassVar = Needs(adversarial=True)

    def inner_objective(self, logits, batch: Batch):
        return cross_entropy(logits, batch.labels)

    def loss_terms(self, batch: Batch, state=None):
        return (Term("cross_entropy", cross_entropy(batch.adversarial.logits, batch.labels)),)
