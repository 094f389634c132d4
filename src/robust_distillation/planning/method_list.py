"""The list of all methods: what each minimises, which images its teachers see, and what a step costs.

Nothing is written down twice: names and formulas are the docstrings of the methods' files, and the calls of networks
are observed by running one step of each method.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robust_distillation import methods
from robust_distillation.methods import Method
from robust_distillation.planning.calls import FORWARDS

if TYPE_CHECKING:
    from torch import Tensor

    from robust_distillation.training.step import BatchStep, Calls

STUDENT = {"name": "resnet", "depth": 18, "width": 64}
TRAINING = {
    "epochs": 300, "batch_size": 128, "learning_rate": 0.1, "inner_attack": {"steps": 10, "step_size": 2 / 255}
}  # fmt: skip
HEAD = """# Methods

Made by `robust-distillation methods > docs/methods.md`. S is the student, T a teacher, x a clean and x' an adversarial
image, y the label, CE the cross-entropy, KL the divergence of the softmaxes, ^t the softmax of logits / t.

The table counts the calls of networks in one optimisation step, with the method's default settings, 10 steps of inner
maximisation, and in the last phase of a training where the calls change. The unit is one forward pass of that network
on a batch: a gradient in the images costs as much again, a gradient in the weights too. "times SAT" compares the
student's passes with those of standard adversarial training. A dash means: no such network, or none that is called.

- *stored*: the teacher's outputs on the augmented images are computed once, before the training.
- *official protocol*: the repository whose code `protocol: official` follows. A dash: only `protocol: controlled` is.

"""
COLUMNS = ("method", "the teacher sees", "student", "times SAT", "teachers", "own networks", "official protocol")


@dataclass(frozen=True)
class Described:
    """Description of a method, as the list shows it.

    Attributes:
        name: name in experiment files, such as `rslad`.
        title: its name in full with the paper, such as "TRADES (Zhang et al., ICML 2019)".
        formula: what it minimises and what x' maximises, one sentence.
        unknown: what is not known of the original method, one sentence each.
        sees: for each role (the name under which the method calls a teacher) the images that the teacher sees.
        student: passes of the student in a step, in forward passes.
        teachers: passes of all teachers' networks, in forward passes.
        own: passes of all networks that are trained besides the student, in forward passes.
        official: the repository of the released code, "yes" if its docstring names none, or "-".
    """

    name: str
    title: str
    formula: str
    unknown: tuple[str, ...]
    sees: dict[str, list[str]]
    student: int
    teachers: int
    own: int
    official: str


def page() -> str:
    """Returns the list of all methods as Markdown: a table, then the formula and the open points of each method."""
    found = [described(name) for name in methods.names()]
    sat = next(method.student for method in found if method.name == "sat")
    rows = [COLUMNS, ("---",) * len(COLUMNS), *(_row(method, sat) for method in found)]
    table = "".join("| " + " | ".join(row) + " |\n" for row in rows)
    return HEAD + table + "".join(_section(method) for method in found)


def _row(method: Described, sat: int) -> tuple[str, ...]:
    sees = "; ".join(
        (f"{role}: " if len(method.sees) > 1 else "") + ", ".join(images) for role, images in method.sees.items()
    )
    return (
        f"[`{method.name}`](#{method.name})",
        sees or "-",
        str(method.student),
        f"{method.student / sat:.2f}",
        str(method.teachers or "-"),
        str(method.own or "-"),
        method.official,
    )


def _section(method: Described) -> str:
    unknown = "".join(f"- {point}\n" for point in method.unknown)
    return f"\n## {method.name}\n\n{method.title}\n\n{method.formula}\n" + (
        f"\nNot known of the original:\n\n{unknown}" if unknown else ""
    )


def described(name: str) -> Described:
    """Describes a method with its default settings, and runs one step of its last phase on tiny networks.

    Args:
        name: name of the method, such as `rslad`.

    Raises:
        UserError: no method has this name.
    """
    kind = methods.get(name)
    sees, calls = _observed(kind())
    student, teachers, own = (_passes(calls, group) for group in ("student", "teacher", "own"))
    document = inspect.getdoc(kind) or ""
    return Described(
        name=name,
        title=_first_paragraph(sys.modules[kind.__module__].__doc__ or name),
        formula=_first_paragraph(document),
        unknown=_points(document, "Unknown"),
        sees=sees,
        student=student,
        teachers=teachers,
        own=own,
        official=_official(kind),
    )


def _first_paragraph(document: str) -> str:
    return " ".join(document.partition("\n\n")[0].split())


def _points(document: str, section: str) -> tuple[str, ...]:
    """Returns the points `- ...` of a section of a docstring, each on one line."""
    _, _, rest = f"{document}\n".partition(f"\n{section}:\n")
    block = re.match(r"((    .*)?\n)*", rest)
    text = inspect.cleandoc(block[0]) if block else ""
    return tuple(" ".join(point.split()) for point in re.split(r"^- ", text, flags=re.M) if point.strip())


def _official(kind: type[Method]) -> str:
    if kind.official(10, STUDENT["name"]) is None:
        return "-"
    repository = re.search(r"\((\w[\w.-]*/\w[\w.-]*)", inspect.getdoc(kind.official) or "")
    return repository[1] if repository else "yes"


def _passes(calls: Calls, group: str) -> int:
    return sum(number * FORWARDS[kind] for (of, _, kind), number in calls.items() if of == group)


def _observed(method: Method) -> tuple[dict[str, list[str]], Calls]:
    """Runs one step of a method's last phase.

    Returns:
        For each role the images that the teacher sees, in the order of the first call; and the counted calls.
    """
    from robust_distillation import data
    from robust_distillation.settings import ThreatModel, Training
    from robust_distillation.training.counting import tiny_step

    training = Training.model_validate(TRAINING)
    threat = ThreatModel(norm="linf", eps=8 / 255)
    trainer, step = tiny_step(method, training, threat, data.info("cifar10"), STUDENT, method.phases()[-1])
    observer = _Observer(step)
    for role, calls in method.teachers().items():
        for network in [trainer.teachers[role].network, *([trainer.own[role]] if calls.trained else [])]:
            network.layers.register_forward_pre_hook(observer.hook(role))
    trainer.run(step)
    return observer.images(), step.calls


class _Observer:
    """Notes on which images each teacher is called during a step."""

    def __init__(self, step: BatchStep):
        self.step, self.adversarial, self.seen = step, [], []
        self.reading = False
        once, cached = step.once, step.cached

        def noted(make: Callable[[], Any]) -> Any:
            found = once(make)
            for tensor in found if isinstance(found, list | tuple) else [found]:
                if getattr(tensor, "shape", None) == step.x.shape:
                    self.adversarial.append(tensor.detach())
            return found

        def read(*role: str) -> Any:
            self.reading = True
            try:
                return cached(*role)
            finally:
                self.reading = False

        step.once, step.cached = noted, read  # type: ignore[method-assign]

    def hook(self, role: str) -> Callable[..., None]:
        """Returns a hook for a teacher's network, to be called before each forward pass."""
        import torch

        def note(module: Any, inputs: tuple[Tensor]) -> None:
            gradient = inputs[0].requires_grad and torch.is_grad_enabled()
            self.seen.append((role, inputs[0].detach().clone(), gradient, self.reading))

        return note

    def images(self) -> dict[str, list[str]]:
        """Returns for each role what the teacher sees, such as ["x (stored)", "x'"]."""
        found: dict[str, list[str]] = {}
        for role, images, gradient, stored in self.seen:
            what = self._name(images, gradient) + (" (stored)" if stored else "")
            if what not in found.setdefault(role, []):
                found[role].append(what)
        return found

    def _name(self, images: Tensor, gradient: bool) -> str:
        import torch

        x = self.step.x

        def same(other: Tensor) -> bool:
            return images.shape == other.shape and torch.equal(images, other)

        if same(x):
            return "x, with its gradient" if gradient else "x"
        if gradient:
            return "x' at each step of the attack, with its gradient"
        if any(map(same, self.adversarial)):
            return "x'"
        return "2x - x'" if any(same(2 * x - adversarial) for adversarial in self.adversarial) else "other images"
