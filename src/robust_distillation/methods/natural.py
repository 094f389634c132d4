"""Natural training: cross-entropy on clean images."""

from __future__ import annotations

from typing import ClassVar

from robust_distillation.losses import cross_entropy
from robust_distillation.methods.contract import Batch, Method, Needs, Term


class Natural(Method):
    """min CE(S(x), y)."""

    needs: ClassVar = Needs(clean=True)

    def loss_terms(self, batch: Batch, state=None):
        return (Term("cross_entropy", cross_entropy(batch.clean.logits, batch.labels)),)
