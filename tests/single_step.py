"""Helpers for the tests of methods whose attack has a single step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from released import Case, Pair
from torch import nn

from robust_distillation import methods
from robust_distillation.settings import ThreatModel, Training
from robust_distillation.training import step as training_step
from robust_distillation.training.batches import Batch
from robust_distillation.training.trainer import Trainer

EPS = 0.01
SIDE = 64


class LinearModel(nn.Module):
    """Two classes, whose gradient in pixel j has the sign (-1)^j for an image of class 0."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(SIDE * SIDE, 2, bias=False).double()
        with torch.no_grad():
            self.classifier.weight[0] = 0
            self.classifier.weight[1] = 1e-3 * self.signs()

    @staticmethod
    def signs():
        return 1.0 - 2.0 * (torch.arange(SIDE * SIDE) % 2).double()

    def features(self, x):
        return x.flatten(1)

    def forward(self, x):
        return self.classifier(self.features(x))


def perturbation_on_a_linear_model(name: str, monkeypatch, **settings) -> tuple[torch.Tensor, torch.Tensor]:
    """(x' - x) / eps at x = 0.5, and the sign of the gradient, of each pixel.

    The noise is no random one but a grid on [-eps, eps], the same for both signs: means over the pixels are integrals.
    """
    pixels = SIDE * SIDE // 2
    grid = (2 * torch.arange(pixels).double() + 1) / pixels - 1
    noise = EPS * grid.repeat_interleave(2).view(1, 1, SIDE, SIDE)
    found, pgd = [], training_step.pgd
    monkeypatch.setattr(training_step, "starting_noise", lambda *_: noise)
    monkeypatch.setattr(training_step, "pgd", lambda *args, **named: found.append(pgd(*args, **named)) or found[-1])
    budget = {"epochs": 1, "batch_size": 1, "learning_rate": 0.1, "inner_attack": {"step_size": 0.001}}
    method = methods.get(name)(**settings)
    trainer = Trainer(LinearModel(), method, Training.model_validate(budget), ThreatModel(eps=EPS), 0)
    x, first = torch.full((1, 1, SIDE, SIDE), 0.5).double(), torch.tensor([0])
    trainer.step(Batch(x, first, first, first, 1, 0, 1))
    return ((found[0] - x) / EPS).flatten(), LinearModel.signs()


def differing_pixels(case: Case, monkeypatch, tolerance: float = 2e-7, **arguments) -> tuple[int, int, float]:
    """Pixels of x' of the first step in single precision that differ by more than rounding, of how many, and the
    difference of the losses."""
    pair = Pair(case, "resnet", {"width": 4, **arguments}, torch.float32, monkeypatch)
    theirs, their_loss, ours, our_loss = pair.advance(0, 8)
    return int(((ours - theirs).abs() > tolerance).sum()), ours.numel(), abs(float(our_loss - their_loss))


def clipped(delta, low, high):
    """Their clamp: between tensors."""
    return torch.max(torch.min(delta, high), low)


def rising_and_falling(peak: float, epochs: int) -> Callable[[int], float]:
    """Our learning rate in the steps of `released`, of which step n is the last of an epoch of n + 1."""
    return lambda step: peak * step / (epochs / 2 * (step + 1) - 1)
