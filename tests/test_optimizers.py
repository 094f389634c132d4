"""The optimisers that an experiment may choose: all of torch.optim that can train a network here, and no other."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
import torch
from conftest import REPOSITORY, environment

from robust_distillation import optimizers
from robust_distillation.errors import UserError
from robust_distillation.settings import Training
from robust_distillation.training.trainer import make_optimizer

IN_TORCH = {
    name: value
    for name, value in vars(torch.optim).items()
    if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer
}
SHAPES = [(3, 2, 3, 3), (4, 5), (6,), ()]  # convolutions, linear layers, batch norm, a scalar
BUDGET = {"epochs": 2, "batch_size": 4, "learning_rate": 0.1, "inner_attack": {"step_size": 0.1}}


def parameters() -> list[torch.nn.Parameter]:
    """Of every shape, each with a dense gradient."""
    draws = torch.Generator().manual_seed(0)
    found = [torch.nn.Parameter(torch.randn(shape, generator=draws)) for shape in SHAPES]
    for parameter in found:
        parameter.grad = torch.randn(parameter.shape, generator=draws)
    return found


def test_every_optimiser_of_torch_is_allowed_or_refused_with_a_reason():
    assert {*optimizers.names(), *optimizers.REFUSED} == set(IN_TORCH)
    assert not set(optimizers.names()) & set(optimizers.REFUSED)


@pytest.mark.parametrize("name", optimizers.names())
def test_an_allowed_optimiser_moves_parameters_of_every_shape_without_a_closure(name):
    moved = parameters()
    before = [parameter.detach().clone() for parameter in moved]
    budget = Training.model_validate(BUDGET | {"optimizer": {"name": name}})
    optimizer = make_optimizer(budget, [{"params": moved}])
    assert type(optimizer) is IN_TORCH[name]
    assert optimizer.param_groups[0]["lr"] == 0.1
    for _ in range(2):
        optimizer.step()
    for shape, start, parameter in zip(SHAPES, before, moved, strict=True):
        assert not torch.equal(start, parameter), shape


@pytest.mark.parametrize("name", optimizers.REFUSED)
def test_a_refused_optimiser_cannot_train_a_network(name):
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        IN_TORCH[name](parameters()).step()


@pytest.mark.parametrize("name", optimizers.names())
def test_arguments_are_read_as_torch_has_them(name):
    signature = inspect.signature(IN_TORCH[name].__init__).parameters
    defaults = {key: value.default for key, value in signature.items() if key not in ("self", "params")}
    assert optimizers.arguments(name) == defaults


def test_names_are_read_without_importing_torch():
    code = "import sys; from robust_distillation import optimizers; optimizers.arguments('Adam'); optimizers.names(); "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment(REPOSITORY)).returncode == 0


def test_weight_decay_and_momentum_reach_the_optimiser_that_has_them():
    def made(**changes):
        return make_optimizer(Training.model_validate(BUDGET | changes), [{"params": parameters()}]).param_groups[0]

    assert made(weight_decay=0.5)["weight_decay"] == 0.5
    assert made()["momentum"] == 0.9
    assert made(momentum=0.3)["momentum"] == 0.3
    adam = made(optimizer={"name": "AdamW", "betas": [0.8, 0.9]}, weight_decay=0.5)
    assert (tuple(adam["betas"]), adam["weight_decay"]) == ((0.8, 0.9), 0.5)
    assert made(optimizer={"name": "RMSprop", "momentum": 0.2})["momentum"] == 0.2


def test_an_option_that_torch_refuses_is_a_persons_mistake():
    budget = Training.model_validate(BUDGET | {"optimizer": {"name": "Adam", "betas": [2.0, 0.9]}})
    with pytest.raises(UserError, match=r"training\.optimizer: Adam refuses its options \(Invalid beta"):
        make_optimizer(budget, [{"params": parameters()}])
