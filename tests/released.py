"""Comparison of a method's official protocol with its released code: both train the same student, step by step.

A released code is given as a function: one iteration of the loop in the authors' repository, restated in plain torch
and in our own words. It says what is attacked from where, in which mode, which batches go through which network in
which order, the loss as it is coded, and the update. None of our losses, methods, attacks or optimisers is used in it,
only the networks, the teachers' weights and the random numbers; ours runs with what an experiment of `protocol:
official` gives it.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robust_distillation import methods
from robust_distillation.config import load
from robust_distillation.config.experiment import Experiment
from robust_distillation.data.dataset import Dataset
from robust_distillation.models.checkpoint import build_model
from robust_distillation.randomness import generator
from robust_distillation.training import step as training_step
from robust_distillation.training.batches import Batch
from robust_distillation.training.teacher import Teacher
from robust_distillation.training.trainer import Trainer, build_own

SEED = 3
NARROW = {"resnet": {"width": 4}, "mobilenet_v2": {"width": 4}}
EXPERIMENT = """
name: released
protocol: official
dataset: {{name: {dataset}, padding: 4}}
threat_model: {{norm: linf, eps: 8/255}}
seeds: [0]
teachers: {teachers}
students: {{resnet: {{}}, mobilenet_v2: {{}}, wide_resnet: {{}}}}
methods: {{{method}: {settings}}}
evaluation: {{attacks: [fgsm]}}
"""
ONE = "{robust: {architecture: resnet, width: 4, trained_by: {method: sat}}}"


@dataclass
class Code:
    """Networks in training by a released code. All are updated by SGD.

    Attributes:
        student: the student.
        teachers: by role, in eval mode.
        own: networks that are trained besides the student, by name.
        learning_rate, weight_decay, momentum: of the updates.
        decayed: called with a module and the name of its parameter; says whether weight decay applies.
        state: numbers and tensors of the code, to be kept from step to step.
    """

    student: nn.Module
    teachers: Mapping[str, nn.Module]
    own: Mapping[str, nn.Module] = field(default_factory=dict)
    learning_rate: float = 0.1
    weight_decay: float = 2e-4
    momentum: float = 0.9
    decayed: Callable[[nn.Module, str], bool] = lambda module, name: True
    state: dict[str, Any] = field(default_factory=dict)
    velocity: dict = field(default_factory=dict)

    @property
    def teacher(self) -> nn.Module:
        """The only teacher."""
        [found] = self.teachers.values()
        return found

    def update(self, loss, *names: str) -> None:
        """One step of SGD with L2 weight decay on the student, or on the networks of these names together."""
        networks = [self.student if name == "student" else self.own[name] for name in names or ("student",)]
        places = [
            (module, name)
            for network in networks
            for module in network.modules()
            for name in dict(module.named_parameters(recurse=False))
        ]
        parameters = [getattr(module, name) for module, name in places]
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for (module, name), parameter, gradient in zip(places, parameters, gradients, strict=True):
                if self.decayed(module, name):
                    gradient = gradient + self.weight_decay * parameter
                before = self.velocity.get((module, name))
                self.velocity[module, name] = gradient if before is None else self.momentum * before + gradient
                parameter -= self.learning_rate * self.velocity[module, name]

    def attacked(self, x, start, loss: Callable, eps: float = 8 / 255, size: float = 2 / 255, steps: int = 10):
        """Steps of `size` along the sign of the gradient, each followed by the ball and then by [0,1].

        loss: called with the student's logits at x', and with x' too if it takes two arguments.
        """
        takes_images = loss.__code__.co_argcount == 2
        x_adv = start
        for _ in range(steps):
            x_adv = x_adv.detach().requires_grad_()
            logits = self.student(x_adv)
            [gradient] = torch.autograd.grad(loss(logits, x_adv) if takes_images else loss(logits), [x_adv])
            x_adv = x_adv.detach() + size * torch.sign(gradient)
            x_adv = torch.min(torch.max(x_adv, x - eps), x + eps)
            x_adv = torch.clamp(x_adv, 0.0, 1.0)
        return x_adv

    def taught(self, x, role: str | None = None):
        with torch.no_grad():
            return (self.teachers[role] if role else self.teacher)(x)


def gaussian(x, epoch: int, step: int):
    return 0.001 * torch.randn(x.shape, generator=generator(SEED, "attack", epoch, step)).to(x)


def uniform(x, eps: float, epoch: int, step: int):
    return eps * (2 * torch.rand(x.shape, generator=generator(SEED, "attack", epoch, step)).to(x) - 1)


@dataclass(frozen=True)
class Case:
    """A method and a released code.

    Attributes:
        method: name of the method.
        step: one iteration of the released code, called as step(code, x, labels, epoch, step); returns x' and the loss.
        dataset: `cifar10` or `cifar100`.
        epochs: the epoch of each of five steps. Where it rises, the epoch before ends.
        code: fields of Code that differ from their defaults.
        settings: the method's settings in an experiment file, as YAML.
        reach: largest change of a pixel.
    """

    method: str
    step: Callable
    dataset: str = "cifar10"
    epochs: tuple[int, ...] = (1,) * 5
    code: Mapping[str, Any] = field(default_factory=dict)
    settings: str = "{}"
    reach: float = 8 / 255

    @property
    def experiment(self) -> Experiment:
        return experiment_of(self.method, self.dataset, self.settings)


@cache
def experiment_of(method: str, dataset: str = "cifar10", settings: str = "{}") -> Experiment:
    """An experiment of the official protocol with one method."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "released.yaml"
        roles = list(methods.get(method)().teachers())
        teachers = ONE
        if len(roles) > 1:
            all_roles = ", ".join(f"{role}: robust" for role in roles)
            teachers = ONE.removesuffix("}") + f", all: {{roles: {{{all_roles}}}}}}}"
        text = EXPERIMENT.format(dataset=dataset, teachers=teachers, method=method, settings=settings)
        path.write_text(text)
        return load(path)


def images(dtype, size: int, classes: int, step: int):
    """Images with many pixels at 0 and 1, where [0,1] binds."""
    own = generator(SEED, "images", step)
    x = torch.rand(size, 3, 32, 32, generator=own) * 1.4 - 0.2
    return x.clamp(0, 1).to(dtype), torch.randint(classes, (size,), generator=own)


def network(architecture: str, arguments: dict, classes: int, dtype, seed: int) -> nn.Module:
    """Fresh weights, and running statistics as of a network that has seen some images."""
    model = build_model({"name": architecture, **arguments}, (3, 32, 32), classes, seed).to(dtype).train()
    with torch.no_grad():
        for step in range(3):
            model(images(dtype, 8, classes, -1 - step)[0])
    return model


class Pair:
    """The same networks twice: in the released code's hands and in ours."""

    def __init__(self, case: Case, architecture: str, arguments: dict, dtype, monkeypatch):
        self.case, self.dtype, experiment = case, dtype, case.experiment
        self.classes = len(experiment.info.classes)
        student = network(architecture, arguments, self.classes, dtype, 1)
        recipe = experiment.recipes[case.method, architecture]
        method = recipe.method.settings
        declared = method.teachers()
        teachers = {
            role: network("resnet", {"width": 4}, self.classes, dtype, 2 + number).eval()
            for number, role in enumerate(declared)
        }
        copies = {role: copy.deepcopy(teachers[role]) for role, calls in declared.items() if calls.trained}
        data = Dataset(torch.zeros(64, 3, 32, 32, dtype=torch.uint8), torch.arange(64) % self.classes, experiment.info)
        own = build_own(method, data, student, SEED, {"name": architecture, **arguments}, copies=copies).to(dtype)
        networks = [*method.networks({"name": architecture, **arguments}), *copies]
        self.code = Code(
            copy.deepcopy(student),
            copy.deepcopy(teachers),
            {name: copy.deepcopy(own[name]) for name in networks},
            **case.code,
        )
        wrapped = {role: Teacher(teacher) for role, teacher in teachers.items()}
        self.trainer = Trainer(student, method, recipe.training, experiment.threat_model, SEED, own, wrapped)
        self.trainer.module.train()
        self.found, pgd = [], training_step.pgd

        def observed(*args, **options):
            self.found.append(pgd(*args, **options))
            return self.found[-1]

        monkeypatch.setattr(training_step, "pgd", observed)

    def advance(self, step: int, size: int):
        """x' and the loss of one step, theirs and ours."""
        x, labels = images(self.dtype, size, self.classes, step)
        epoch = self.case.epochs[step]
        if step and epoch > self.case.epochs[step - 1]:
            self.trainer.end_epoch(self.case.epochs[step - 1])
        theirs, their_loss = self.case.step(self.code, x, labels, epoch, step)
        index, views = torch.arange(size), torch.zeros(size, dtype=torch.long)
        our_loss = self.trainer.step(Batch(x, labels, index, views, epoch, step, step + 1))["loss"]
        return theirs, their_loss.detach(), self.found[-1], our_loss


def check_first_step(case: Case, architecture: str, monkeypatch, arguments: dict | None = None, size: int = 8) -> None:
    """Checks one step in single precision: x' is the same bit by bit on every image, and the loss to 1e-6."""
    arguments = NARROW[architecture] if arguments is None else arguments
    pair = Pair(case, architecture, arguments, torch.float32, monkeypatch)
    theirs, their_loss, ours, our_loss = pair.advance(0, size)
    assert torch.equal(ours, theirs)
    assert abs(our_loss - their_loss) < 1e-6 * max(1, abs(their_loss))


def check_five_steps(case: Case, architecture: str, monkeypatch) -> None:
    """Checks five steps in double precision: x' up to rounding, then weights and batch norm's buffers of all networks
    that are trained, which shows momentum and weight decay too."""
    pair = Pair(case, architecture, NARROW[architecture], torch.float64, monkeypatch)
    theirs = {"student": pair.code.student, **pair.code.own}
    ours = {"student": pair.trainer.student, **{name: pair.trainer.own[name] for name in pair.code.own}}
    before = copy.deepcopy({name: module.state_dict() for name, module in ours.items()})
    for step in range(5):
        their_x, their_loss, our_x, our_loss = pair.advance(step, 8 if architecture == "resnet" else 4)
        x, _ = images(torch.float64, len(our_x), pair.classes, step)
        assert 0.9 * case.reach < (their_x - x).abs().max() < 1.1 * case.reach
        assert torch.allclose(our_x, their_x, rtol=0, atol=1e-12), step
        assert abs(our_loss - their_loss) < 1e-9 * max(1, abs(their_loss)), step
    for name, module in theirs.items():
        found = ours[name].state_dict()
        for key, tensor in module.state_dict().items():
            assert torch.allclose(found[key].double(), tensor.double(), rtol=0, atol=1e-9), (name, key)
            assert name != "student" or not torch.equal(tensor, before[name][key]), key
