"""Adversarial weight perturbation, AWP (Wu, Xia, Wang; NeurIPS 2020; arXiv 2004.05884)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robust_distillation.settings import WeightPerturbation

TINY = 1e-20  # keeps the division by the norm of a zero gradient finite


class Perturbation:
    """Shift v of a network's weights w along the gradient g of the loss: v = gamma ||w|| g / (||g|| + 1e-20).

    It is adversarial weight perturbation (AWP, Wu et al., 2020). The norms are Frobenius norms, of each parameter
    tensor alone. The authors' code computes g as the difference that one step of SGD makes to a copy of the network;
    the learning rate of that step cancels.
    """

    @torch.no_grad()
    def __init__(self, network: nn.Module, settings: WeightPerturbation):
        """Computes v from the gradients that the parameters hold; moves no weight.

        Args:
            network: network after a backward pass of the loss that v is to raise. A parameter without gradient is not
                moved.
            settings: section `training.weight_perturbation` of the experiment file: `gamma`, and `variant`. `wu2020`
                moves the parameters of more than one dimension whose name contains `weight`; `adr` moves all
                parameters.
        """
        self.shifts: list[tuple[nn.Parameter, Tensor, Tensor]] = []  # parameter, v, copy of w
        for name, weight in network.named_parameters():
            moved = settings.variant == "adr" or (weight.ndim > 1 and "weight" in name)
            if moved and weight.grad is not None:
                shift = settings.gamma * weight.norm() / (weight.grad.norm() + TINY) * weight.grad
                self.shifts.append((weight, shift, weight.detach().clone()))

    @torch.no_grad()
    def add(self) -> None:
        """Moves the weights to w + v, in place."""
        for weight, shift, _ in self.shifts:
            weight.add_(shift)

    @torch.no_grad()
    def subtract(self) -> None:
        """Subtracts v from the present weights, in place, also if an optimiser changed them since `add`."""
        for weight, shift, _ in self.shifts:
            weight.sub_(shift)

    @torch.no_grad()
    def restore(self) -> None:
        """Puts the weights back exactly to w, their values at the creation of this object, in place."""
        for weight, _, before in self.shifts:
            weight.copy_(before)
