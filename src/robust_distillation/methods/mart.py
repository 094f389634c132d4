"""MART, misclassification-aware adversarial training (Wang et al., ICLR 2020)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from robust_distillation.losses import cross_entropy, kl_divergence, true_class_probability
from robust_distillation.methods.contract import Batch, Method, Needs, Term


class MART(Method):
    """min BCE(S(x'), y) + beta (1 - S_y(x)) KL(S(x) || S(x')), where x' maximises CE(S(x'), y).

    BCE(p, y) = -log p_y - log(1 - max_{k != y} p_k). The constants 1.0001 and 1.0000001 that keep the logarithm and the
    weight off zero are those of the authors' code; so is the gradient through the weight.
    """

    needs: ClassVar = Needs(clean=True, adversarial=True)
    beta: float = Field(5.0, ge=0)

    def inner_objective(self, logits, batch: Batch):
        return cross_entropy(logits, batch.labels)

    def loss_terms(self, batch: Batch, state=None):
        clean, adversarial = batch.clean.logits, batch.adversarial.logits
        others = adversarial.softmax(1).scatter(1, batch.labels[:, None], 0.0)
        margin = -(1.0001 - others.amax(1)).log()
        doubt = 1.0000001 - true_class_probability(clean, batch.labels)
        return (
            Term("boosted_cross_entropy", cross_entropy(adversarial, batch.labels) + margin),
            Term("divergence", doubt * kl_divergence(clean, adversarial), self.beta, divergence=True),
        )
