"""One training: the networks, the optimisers, and the update on a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from robust_distillation import optimizers
from robust_distillation.cuda_graph import GraphReplay
from robust_distillation.data.dataset import Dataset
from robust_distillation.errors import UserError
from robust_distillation.methods import EpochEnd, Method, Sizes, Term
from robust_distillation.models.checkpoint import build_model
from robust_distillation.randomness import derived_seed, generator
from robust_distillation.settings import ThreatModel, Training, WeightPerturbation
from robust_distillation.training.averaging import build_average
from robust_distillation.training.batches import Batch
from robust_distillation.training.parallel import Group
from robust_distillation.training.reduction import reduce
from robust_distillation.training.schedule import factor, learning_rate
from robust_distillation.training.step import BatchStep, Calls, TrainedNetwork
from robust_distillation.training.teacher import Teacher
from robust_distillation.training.weight_perturbation import Perturbation

STUDENT = "student"  # names its optimiser


class Networks(nn.Module):
    """The student and the method's own modules as one module. DistributedDataParallel then sees one forward pass of it.

    Attributes:
        student: the student.
        own: the modules that the method trains or updates besides the student, by name.
    """

    def __init__(self, student: nn.Module, own: nn.ModuleDict):
        """Joins the modules.

        Args:
            student: the student.
            own: the modules that the method trains or updates besides the student, by name.
        """
        super().__init__()
        self.student, self.own = student, own

    def forward(self, evaluate: Callable[[], tuple[Tensor, dict[str, Tensor]]]) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns `evaluate()`, a function without arguments that calls the networks and returns (loss, mean of each
        loss term by name).
        """
        return evaluate()


@dataclass
class Trainer:
    """The networks and optimisers of one training. The function `step` updates them by one batch.

    Own modules are those that a method trains or updates besides the student: networks, copies of teachers, projection
    heads, memory banks.

    Attributes:
        student: the network that is trained, with `features` and `classifier`.
        method: the distillation or training method with its settings.
        settings: section `training` of the experiment file: epochs, batch size, optimiser, schedule and inner attack of
            the student.
        threat_model: norm (`linf` or `l2`) and radius `eps` of attacks, `eps` in the pixel range [0,1], such as 8/255.
        seed: seed from which all random numbers of the training follow.
        own: the method's own modules by name, from `build_own`; empty by default.
        teachers: role (name under which the method calls a teacher, such as `robust`) to the teacher's network and
            cached outputs; empty by default.
        group: the processes of torch.distributed that share each batch; one process by default.
        average: the average of the student's weights, from `build_average`; None if `settings.averaging` is None.
        optimizers: set by the constructor: the optimisers by name. `student` updates the student and all own modules
            without an optimiser of their own. The others have the names of the own modules for which
            `method.optimisation` returns settings.

    Raises:
        UserError: torch refuses a value of an optimiser option.
    """

    student: nn.Module
    method: Method
    settings: Training
    threat_model: ThreatModel
    seed: int
    own: nn.ModuleDict = field(default_factory=nn.ModuleDict)
    teachers: Mapping[str, Teacher] = field(default_factory=dict)
    group: Group = field(default_factory=Group)
    average: AveragedModel | None = None
    optimizers: dict[str, torch.optim.Optimizer] = field(init=False)

    def __post_init__(self) -> None:
        if self.settings.averaging and self.average is None:
            self.average = build_average(self.student, self.settings.averaging)
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
        """Updates all weights by one batch: computes the loss and the gradients, and takes one step of each optimiser.

        With several processes, the running statistics of the first process are first copied to all, since local batch
        norm lets them differ.

        Args:
            batch: the batch, with the rows of this process.

        Returns:
            Detached tensors of no dimensions by name: `loss`, and the batch mean of each loss term. With several
            processes each value is multiplied by this process's share of the rows, so that the sum over all processes
            is the mean over the whole batch.

        Raises:
            TypeError: the method makes a call that it does not declare, or returns terms of a wrong form.
            UserError: a term is not finite in the first optimisation step.
        """
        return self.run(BatchStep(self, batch))

    def run(self, step: BatchStep) -> dict[str, Tensor]:
        """Updates all weights by one batch, as `step` does.

        Args:
            step: the batch as the method receives it, not evaluated yet. Afterwards `step.calls` has counted the calls
                of networks.

        Returns:
            Detached tensors of no dimensions by name: `loss`, and the batch mean of each loss term, scaled as in the
            result of `Trainer.step`.
        """
        batch, perturb = step.batch, self.settings.weight_perturbation
        self.set_learning_rates(batch.epoch, batch.number, batch.steps)
        self._share_statistics()
        if perturb and batch.epoch > perturb.start:
            means = self._perturbed_update(step, perturb)
        else:
            means = self._backward(step)
            self._update()
        self._add_to_average(batch)
        part = self.group.weight(step.total) / self.group.size
        return {name: value * part for name, value in means.items()}

    def _backward(self, step: BatchStep, repeatable: bool = False) -> dict[str, Tensor]:
        """Evaluates the loss and computes the gradients of all weights; returns the loss and the means of its terms."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        loss, means = self.wrapped(partial(step.evaluate, repeatable))
        (loss * self.group.weight(step.total)).backward()
        return {"loss": loss.detach(), **means}

    def _update(self) -> None:
        for optimizer in self.optimizers.values():
            optimizer.step()

    def _perturbed_update(self, step: BatchStep, settings: WeightPerturbation) -> dict[str, Tensor]:
        """Updates all weights by the gradient at the student's perturbed weights; see `settings.WeightPerturbation`."""
        as_authors = settings.variant == "wu2020"
        self._backward(step, repeatable=True)
        perturbation = Perturbation(self.student, settings)  # from the gradient of all processes
        perturbation.add()
        means = self._backward(step)
        if as_authors:
            self._update()
            perturbation.subtract()
        else:
            step.restore()
            perturbation.restore()
            self._update()
        return means

    def _add_to_average(self, batch: Batch) -> None:
        """Adds the student's weights to their average, if this step is one at which that is due."""
        settings = self.settings.averaging
        if settings and batch.epoch > settings.start and (settings.per == "step" or batch.number == batch.steps - 1):
            self.average.update_parameters(self.student)

    @property
    def evaluated(self) -> nn.Module:
        """The network that validation evaluates and checkpoints hold: the average once it has weights, or the
        student.
        """
        return self.average.module if self.averaged_weights else self.student

    @property
    def averaged_weights(self) -> int:
        """Number of weights that were added to the average; 0 without averaging."""
        return 0 if self.average is None else int(self.average.n_averaged)

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
        """Returns the student, followed by those of the method's own modules that are networks (have `features` and
        `classifier`).
        """
        return [self.student, *(module for module in self.own.values() if is_network(module))]

    def own_networks(self, calls: Calls) -> dict[str, Any]:
        """Returns the method's own modules by name, as a method receives them: networks as `TrainedNetwork`, other
        modules unwrapped.

        Args:
            calls: the counter in which calls of the networks are counted, changed in place by each call.
        """
        return {
            name: TrainedNetwork(module, ("own", name), calls) if is_network(module) else module
            for name, module in self.own.items()
        }

    def reduced(self, step: BatchStep) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the method's loss on a batch, and checks the form of its terms in the first call of this trainer.

        Args:
            step: the batch, as the method receives it.

        Returns:
            The loss, a differentiable tensor of no dimensions, and the detached batch mean of each term by name. With
            several processes both are means over the rows of this process.

        Raises:
            TypeError: the terms have a wrong form, see `check_terms`.
            UserError: a term is not finite in the first call.
        """
        terms = tuple(self.method.loss(step))
        if not self._checked:
            check_terms(self.method, terms, len(step.labels))
            self._checked = True
        return reduce(terms, self.student.classifier.out_features, self.settings.kl_scale)

    def set_learning_rates(self, epoch: int, number: int, steps: int) -> None:
        """Sets the learning rate of each optimiser for one step.

        Args:
            epoch: number of the epoch, counted from 1.
            number: number of the optimisation step in its epoch, counted from 0.
            steps: number of optimisation steps of an epoch.
        """
        for name, optimizer in self.optimizers.items():
            for options in optimizer.param_groups:
                options["lr"] = learning_rate(self.budgets[name], epoch, number, steps)

    def begin_epoch(self, epoch: int) -> float:
        """Sets the student and the own networks to train mode.

        Args:
            epoch: number of the epoch, counted from 1.

        Returns:
            The learning rate of the student at the start of this epoch.
        """
        for network in self.networks():
            network.train()
        return learning_rate(self.settings, epoch)

    def end_epoch(self, epoch: int) -> None:
        """Calls the method's `after_epoch`, in which a method may update its own modules.

        Args:
            epoch: number of the epoch that ended, counted from 1.
        """
        epochs = self.settings.epochs
        decay, following = (factor(self.settings, one) for one in (epoch, min(epoch + 1, epochs)))
        self.method.after_epoch(EpochEnd(self.own_networks(Calls()), epoch, epochs, decay, following))


def make_optimizer(budget: Training, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Builds an optimiser of torch.optim from training settings.

    Args:
        budget: the training settings, of which `optimizer`, `learning_rate`, `momentum` (for SGD) and `weight_decay`
            (for optimisers that have one) are used.
        groups: the parameter groups in torch.optim's form, for example `[{"params": [...], "weight_decay": 0.0}]`.

    Raises:
        UserError: torch refuses the value of an option.
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
    """Returns True if `module` has the attributes `features` and `classifier`, as all architectures have."""
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
    """Builds the method's own modules: networks with fresh weights, copies of teachers that are trained further, and
    others such as projection heads.

    Args:
        method: the method with its settings.
        data: the training split: images uint8 [N,C,H,W] and labels int64 [N], as `data.dataset.load` returns them. The
            number of images, labels, shape and classes are used.
        student: the network that is trained, of which the width of the features is used.
        seed: seed of the training; initial weights follow from it.
        architecture: the student's architecture, `{"name": NAME, **arguments}`. None: `{}`, which suffices for methods
            without networks of their own.
        teacher_features: width D of the features of each teacher whose network is loaded or whose features are cached,
            by role (the name under which the method calls a teacher). None: there is no such teacher.
        copies: networks with the weights of the teachers that are trained further, by role. None: no teacher is trained
            further.

    Returns:
        The modules on the CPU by name. A copy of a teacher has its role as name.

    Raises:
        UserError: the method needs labels, and some images have none (label -1).
        TypeError: the method gives two modules the same name.
        KeyError: the method trains a copy of a teacher that `copies` lacks.
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
    """Checks the terms that a method's `loss` returned for one batch.

    Args:
        method: the method, whose `terms` are the declared names.
        terms: the returned terms.
        size: number B of images in the batch of this process.

    Raises:
        TypeError: there is no term, a name is not declared or occurs twice, the values of a term do not have the shape
            [size], or a weight that is a tensor has dimensions.
        UserError: a value of a term is infinite or NaN.
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
