"""One training: the networks, the optimisers, and the update on a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from robust_distillation import optimizers
from robust_distillation.cuda_graph import GraphReplay
from robust_distillation.data.dataset import Dataset
from robust_distillation.errors import UserError
from robust_distillation.methods import EpochEnd, Method, Sizes, Term
from robust_distillation.models.checkpoint import build_model
from robust_distillation.randomness import derived_seed, generator
from robust_distillation.settings import ThreatModel, Training
from robust_distillation.training.batches import Batch
from robust_distillation.training.parallel import Group
from robust_distillation.training.reduction import reduce
from robust_distillation.training.schedule import learning_rate
from robust_distillation.training.step import BatchStep, Calls, TrainedNetwork
from robust_distillation.training.teacher import Teacher

STUDENT = "student"  # names its optimiser


class Networks(nn.Module):
    """All that is trained, as one module, so that DistributedDataParallel sees one forward pass."""

    def __init__(self, student: nn.Module, own: nn.ModuleDict):
        super().__init__()
        self.student, self.own = student, own

    def forward(self, evaluate: Callable[[], tuple[Tensor, dict[str, Tensor]]]) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns evaluate(), which calls the networks."""
        return evaluate()


@dataclass
class Trainer:
    """The networks and optimisers of one training; `step` may be called for any batch, in any order.

    Attributes:
        student: the network that is trained.
        method: the method with its settings.
        settings: epochs, optimiser and inner maximisation.
        threat_model: norm and radius of attacks.
        seed: seed of all random numbers.
        own: the method's own modules, from `build_own`.
        teachers: the teachers by role.
        group: the processes that share each batch.
        optimizers: the optimisers: `student`, and one for each own module that the method gives settings.
    """

    student: nn.Module
    method: Method
    settings: Training
    threat_model: ThreatModel
    seed: int
    own: nn.ModuleDict = field(default_factory=nn.ModuleDict)
    teachers: Mapping[str, Teacher] = field(default_factory=dict)
    group: Group = field(default_factory=Group)
    optimizers: dict[str, torch.optim.Optimizer] = field(init=False)

    def __post_init__(self) -> None:
        self.replay = GraphReplay() if self.group.size == 1 else None  # no graph holds what processes tell each other
        self.module = Networks(self.student, self.own)
        self.wrapped: nn.Module = self.module
        if self.group.size > 1:
            # Own networks may get no gradient in a step. Buffers are not broadcast: state of a method is the same in
            # all processes by itself, and batch norm's see `_share_statistics`.
            self.wrapped = DistributedDataParallel(
                self.module, find_unused_parameters=len(self.own) > 0, broadcast_buffers=False
            )
        self.budgets = {STUDENT: self.settings, **self.method.optimisation(self.settings)}
        self.optimizers = {name: self._optimizer(name, budget) for name, budget in self.budgets.items()}
        self._checked = False

    def _optimizer(self, name: str, budget: Training) -> torch.optim.Optimizer:
        """Builds the optimiser of the student, with all own modules that have none of theirs, or of one own module."""
        modules = [self.own[name]] if name != STUDENT else [self.student, *self._without_optimizer()]
        parameters = list(chain.from_iterable(module.parameters() for module in modules))
        groups: list[dict[str, Any]] = [{"params": parameters}]
        if budget.weight_decay_on == "weights":
            groups = [
                {"params": [parameter for parameter in parameters if parameter.ndim > 1]},
                {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
            ]
        return make_optimizer(budget, groups)

    def _without_optimizer(self) -> Iterator[nn.Module]:
        return (module for name, module in self.own.items() if name not in self.budgets)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Updates the weights by one batch.

        Returns:
            Detached numbers: the loss and the mean of each term. In a group of processes, this process's part of the
            sums over all of them.
        """
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        total = len(batch.ids)
        self._share_statistics()
        loss, means = self.wrapped(BatchStep(self, batch).evaluate)
        (loss * self.group.weight(total)).backward()
        for optimizer in self.optimizers.values():
            optimizer.step()
        part = self.group.weight(total) / self.group.size
        return {name: value * part for name, value in {"loss": loss.detach(), **means}.items()}

    def _share_statistics(self) -> None:
        """Gives all processes the first one's running statistics of networks, which local batch norm lets differ."""
        self.group.broadcast(
            buffer
            for network in self.networks()
            for module in network.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
            for buffer in module.buffers(recurse=False)
        )

    def networks(self) -> list[nn.Module]:
        """Returns the student and the method's own networks."""
        return [self.student, *(module for module in self.own.values() if is_network(module))]

    def own_networks(self, calls: Calls) -> dict[str, Any]:
        """Returns the own modules as a method sees them: networks as `TrainedNetwork`, others as they are."""
        return {
            name: TrainedNetwork(module, ("own", name), calls) if is_network(module) else module
            for name, module in self.own.items()
        }

    def reduced(self, step: BatchStep) -> tuple[Tensor, dict[str, Tensor]]:
        """Evaluates the method's loss and reduces its terms, which are checked the first time."""
        terms = tuple(self.method.loss(step))
        if not self._checked:
            check_terms(self.method, terms, len(step.labels))
            self._checked = True
        return reduce(terms, self.student.classifier.out_features, self.settings.kl_scale)

    def decay(self, epoch: int) -> float:
        """Returns the learning rate of an epoch divided by that of the first."""
        return learning_rate(self.settings, epoch) / learning_rate(self.settings, 1)

    def begin_epoch(self, epoch: int) -> float:
        """Sets train mode and the learning rates of an epoch; returns the student's."""
        for network in self.networks():
            network.train()
        for name, optimizer in self.optimizers.items():
            for options in optimizer.param_groups:
                options["lr"] = learning_rate(self.budgets[name], epoch)
        return learning_rate(self.settings, epoch)

    def end_epoch(self, epoch: int) -> None:
        """Calls the method's `after_epoch`."""
        epochs = self.settings.epochs
        decay, following = self.decay(epoch), self.decay(min(epoch + 1, epochs))
        self.method.after_epoch(EpochEnd(self.own_networks(Calls()), epoch, epochs, decay, following))


def make_optimizer(budget: Training, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Builds the optimiser of a budget.

    Args:
        budget: the training's settings.
        groups: the parameters, as torch.optim takes them.

    Raises:
        UserError: an option has a value that torch refuses.
    """
    name = budget.optimizer.name
    options = {"lr": budget.learning_rate, **budget.optimizer.options}
    accepted = optimizers.arguments(name)
    if name == "SGD":
        options["momentum"] = budget.momentum
    if "weight_decay" in accepted:
        options["weight_decay"] = budget.weight_decay
    try:
        return getattr(torch.optim, name)(groups, **options)
    except ValueError as error:
        raise UserError(f"training.optimizer: {name} refuses its options ({error})") from error


def is_network(module: nn.Module) -> bool:
    """Returns True for a module with features and a classifier, as all architectures have them."""
    return hasattr(module, "features") and hasattr(module, "classifier")


def build_own(
    method: Method,
    data: Dataset,
    student: nn.Module,
    seed: int,
    architecture: dict[str, Any] | None = None,
    teacher_features: Mapping[str, int] | None = None,
    copies: Mapping[str, nn.Module] | None = None,
) -> nn.ModuleDict:
    """Builds the method's own modules: networks, copies of teachers that are trained along, and others.

    Args:
        method: the method with its settings.
        data: the training images.
        student: the network that is trained.
        seed: seed of the training.
        architecture: the student's, `{"name": ..., **arguments}`; only for methods with networks of their own.
        teacher_features: width of the features of each teacher that serves them, by role.
        copies: fresh networks of the teachers that are trained along, by role.

    Raises:
        UserError: the method needs labels, and some images have none.
    """
    if method.needs_labels() and bool((data.labels < 0).any()):
        raise UserError(
            f"method {type(method).__name__} needs labels, and {int((data.labels < 0).sum())} of the {len(data)} "
            "training images have none (label -1). Leave those images out, or choose a method without hard labels"
        )
    declared, info = method.teachers(), data.info
    widths = dict.fromkeys(declared, 0) | dict(teacher_features or {})
    classes = len(info.classes)
    sizes = Sizes(len(data), classes, data.labels, info.shape, student.classifier.in_features, widths)
    modules: dict[str, nn.Module] = {
        name: build_model(own, info.shape, classes, derived_seed(seed, "own", name))
        for name, own in method.networks(architecture or {}).items()
    }
    modules |= {role: copies[role] for role, calls in declared.items() if calls.trained}
    for name, module in method.build(sizes, generator(seed, "state")).items():
        if name in modules:
            raise TypeError(f"method {type(method).__name__}: two of its modules are called {name!r}")
        modules[name] = module
    return nn.ModuleDict(modules)


def check_terms(method: Method, terms: tuple[Term, ...], size: int) -> None:
    """Checks the terms that a method's `loss` returned.

    Args:
        method: the method with its settings.
        terms: the terms.
        size: number B of images of the batch.

    Raises:
        TypeError: a term is not declared in `terms`, occurs twice, or its values do not have the shape [size].
        UserError: a value is not finite.
    """
    where = f"method {type(method).__name__}"
    names = [term.name for term in terms]
    if not terms or len(set(names)) < len(names) or not set(names) <= set(method.terms):
        raise TypeError(
            f"{where}: loss returned the terms {names}, declared are {list(method.terms)}, each at most once"
        )
    for term in terms:
        if tuple(term.values.shape) != (size,):
            shape = list(term.values.shape)
            raise TypeError(f"{where}: the values of term {term.name!r} have the shape {shape}, not [{size}]")
        if isinstance(term.weight, Tensor) and term.weight.ndim:
            raise TypeError(f"{where}: the weight of term {term.name!r} has {term.weight.ndim} dimensions, not none")
        if not bool(term.values.isfinite().all()):
            raise UserError(
                f"{where}: the term {term.name!r} is not finite in the first step of this training. Check the method's "
                "settings, its teachers, and the data"
            )
