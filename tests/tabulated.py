"""A training step whose networks answer from tables of logits, and checks of a method's loss and attack on it.

The tables are attributes of a namespace z, float64 [B,K] each. A network is asked at three images: x, x' and their
mirror 2x - x'. Names, with `_adversarial` and `_mirrored` for the other two images:
- the student in train mode: `clean`, `adversarial`, `mirrored`; in eval mode: `reference`, `reference_adversarial`
- a teacher: its role, such as `natural`, `natural_adversarial`; a role without a table has that of `teacher`
- an own network in train mode: its name, such as `peer`; in eval mode: `peer_reference`
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from formulas import close, numeric_gradient

from robust_distillation.methods import TEACHER
from robust_distillation.models.output import Output
from robust_distillation.settings import InnerAttack, ThreatModel
from robust_distillation.training.reduction import reduce

EPOCH, EPOCHS = 3, 10  # of every step here, unless a test says otherwise
NAMES = ("clean", "adversarial", "reference", "teacher", "teacher_adversarial")
IMAGES = {0.0: "", 1.0: "_adversarial", -1.0: "_mirrored"}  # pixel value to the end of a name


def example(classes, seed=0, size=8, names=NAMES, epoch=EPOCH):
    """Logits of every pass and labels; the first half is mostly classified right, so that both cases occur."""
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=size)
    z = {}
    for name in names:
        z[name] = 1.5 * rng.normal(size=(size, classes))
        z[name][np.arange(size // 2), y[: size // 2]] += 3
    return SimpleNamespace(**z, epoch=epoch), y


class Tabulated:
    """A training step of one process. `outputs` has the answers that were asked for, by the name of their table."""

    def __init__(self, z, y, own: Mapping | None = None, networks: tuple[str, ...] = ()):
        """own: modules of the method. networks: names of its own networks, which answer from tables."""
        self.z, self.outputs, self.asked, self.moved, self.objective = z, {}, [], [], None
        self.x, self.adversarial = torch.zeros(len(y), 1, 2, 2).double(), torch.ones(len(y), 1, 2, 2).double()
        self.labels, self.ids = torch.tensor(y), torch.arange(len(y))
        self.targets = self.labels
        self.epoch, self.epochs, self.decay = z.epoch, EPOCHS, 1.0
        self.threat, self.inner = ThreatModel(eps=8 / 255), InnerAttack(step_size=2 / 255)
        self.student = Table(self, lambda image, train: self._student_name(image, train), trained=True)
        self.own = dict(own or {}) | {
            name: Table(self, lambda image, train, name=name: name + ("" if train else "_reference") + image, True)
            for name in networks
        }
        self.teacher = Roles(self)

    @staticmethod
    def _student_name(image: str, train: bool) -> str:
        return image.removeprefix("_") or "clean" if train else "reference" + image

    def answer(self, name: str, trained: bool) -> Output:
        if name not in self.outputs:
            self.outputs[name] = Output(torch.tensor(getattr(self.z, name), requires_grad=trained))
        return self.outputs[name]

    def cached(self, role=TEACHER):
        return self.teacher[role](self.x)

    def attack(self, objective, *args, noise=None, **changes):
        self.changes = changes | {"noise": noise}
        self.objective = lambda logits: objective(self.adversarial, logits, *args)
        return self.adversarial

    def starting_noise(self):
        return torch.full_like(self.x, 0.01)

    def once(self, make):
        return make()

    def gather(self, values):
        return values

    def mean(self, values):
        return values.mean()

    def minimum(self, values):
        return values.min()

    def maximum(self, values):
        return values.max()


class Table:
    """A network that answers from the tables of a step."""

    def __init__(self, step: Tabulated, name: Callable[[str, bool], str], trained: bool):
        self.step, self.name, self.trained = step, name, trained

    def __call__(self, x, *, train=False):
        name = self.name(IMAGES[float(x.flatten()[0])], train)
        self.step.asked.append(name)
        return self.step.answer(name, self.trained)

    def update_statistics(self, x):
        self.step.moved.append(self.name(IMAGES[float(x.flatten()[0])], True))


class Roles(dict):
    """The teachers of a step, each made when it is asked for."""

    def __init__(self, step: Tabulated):
        super().__init__()
        self.step = step

    def __missing__(self, role: str) -> Table:
        known = role if hasattr(self.step.z, role) or hasattr(self.step.z, role + "_adversarial") else TEACHER
        self[role] = Table(self.step, lambda image, train: known + image, trained=False)
        return self[role]


class Attacked(Exception):
    """Raised where x' would be made: nothing that follows is wanted."""


def objective_of(method, step):
    """Returns the objective that x' maximises, as a function of the student's logits."""

    def attack(objective, *args, **changes):
        Tabulated.attack(step, objective, *args, **changes)
        raise Attacked

    step.attack = attack
    with pytest.raises(Attacked):
        method.loss(step)
    return step.objective


def check_loss(method, step, formula, classes: int, kl_scale: str = "sum") -> None:
    """Compares the loss of a step, and its gradient in the logits of each trained network, with a formula.

    formula: called as formula(z, fixed), returns the parts without and with a divergence, [B] each or their means. z
    and `fixed` have the same tables; the method's gradient must be that in z alone, so `fixed` stands where the method
    lets no gradient through.
    """
    z, fixed = step.z, copy.deepcopy(step.z)

    def value():
        plain, divergence = formula(z, fixed)
        return np.mean(plain) + np.mean(divergence) / {"sum": 1, "mean": classes, "tenth": 10}[kl_scale]

    expected = value()
    loss, _ = reduce(method.loss(step), classes, kl_scale)
    close(loss, expected)
    loss.backward()
    trained = {name: output.logits for name, output in step.outputs.items() if output.logits.requires_grad}
    for name, logits in trained.items():
        gradient = 0.0 if logits.grad is None else logits.grad
        close(gradient, numeric_gradient(value, getattr(z, name)), 1e-6)
    assert any(logits.grad is not None for logits in trained.values())


def check_objective(method, step, formula) -> None:
    """Compares what x' maximises, and its gradient in the student's logits at x', with formula(z), [B]."""
    z = step.z
    logits = torch.tensor(z.adversarial, requires_grad=True)
    values = objective_of(method, step)(logits)
    close(values, formula(z))
    values.sum().backward()
    close(logits.grad, numeric_gradient(lambda: formula(z).sum(), z.adversarial), 1e-6)
