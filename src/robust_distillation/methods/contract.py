"""The contract between a method and the training loop.

A method declares the teachers it asks, and computes the loss of one batch from networks that it calls itself. The order
of its train-mode calls is the order in which batch norm's running statistics are updated. It returns named, unreduced
loss terms; the training loop reduces and weights them, so that the scale of a divergence is decided in one place.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict

from robust_distillation.losses import cross_entropy
from robust_distillation.models.output import Output

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from robust_distillation.settings import InnerAttack, ThreatModel, Training

TEACHER = "teacher"  # the role of the teacher of a method that asks one alone


@dataclass(frozen=True)
class TeacherCalls:
    """How a method asks one of its teachers: the cache, the record and the plan follow from it.

    A call that is not declared is refused when it is made.

    Args:
        cached: outputs of T(x) on clean views, `logits`, `features` or both, which the cache serves.
        live: the network is called, on images that no cache holds, such as x'.
        gradient: the network is called on images that require a gradient, inside an attack for example.
        trained: a copy of the network is trained along with the student; it is `step.own[ROLE]`.
    """

    cached: tuple[str, ...] = ()
    live: bool = False
    gradient: bool = False
    trained: bool = False

    @property
    def loads_network(self) -> bool:
        """True if a training loads the teacher's network, not only its cached outputs."""
        return self.live or self.gradient or self.trained


class Term(NamedTuple):
    """One named part of a loss.

    Args:
        name: column of the training curves; one of the method's `terms`.
        values: unreduced values, float [B].
        weight: factor of the batch mean in the loss, a number or a tensor of no dimensions.
        divergence: True for a divergence over the classes, to which `training.kl_scale` applies.
    """

    name: str
    values: Tensor
    weight: float | Tensor = 1.0
    divergence: bool = False


@dataclass(frozen=True)
class Official:
    """How a method's released code trains, where it differs from our defaults: the `official` protocol.

    Args:
        training: values of `Training`, complete.
        settings: values of the method's own settings.
    """

    training: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sizes:
    """The sizes that a method's own modules depend on.

    Args:
        samples: number of training images.
        classes: number of classes K.
        labels: labels of the training split, int64 [samples]; -1 for an image without a label.
        shape: (channels, height, width) of an image.
        student_features: width of the student's penultimate features.
        teacher_features: width of the features of each teacher, by role; 0 where the method does not ask for them.
    """

    samples: int
    classes: int
    labels: Tensor = field(repr=False)
    shape: tuple[int, int, int]
    student_features: int
    teacher_features: Mapping[str, int]


class Network(Protocol):
    """A network as a method calls it."""

    def __call__(self, x: Tensor, *, train: bool = False) -> Output:
        """Computes logits [B,K] and features [B,D] of images x [B,C,H,W].

        Args:
            x: images; normally in [0,1], which is not enforced.
            train: True: batch norm in train mode, and gradients flow into the weights. False: batch norm in eval mode,
                the weights are frozen; gradients flow into x if x requires one. A teacher cannot be called with True.
        """

    def update_statistics(self, x: Tensor) -> None:
        """Runs a train-mode pass without gradient, which only moves batch norm's running statistics."""


class TrainingStep(Protocol):
    """One batch in training, as the training loop offers it to a method.

    With several processes x, labels and ids are this process's rows of the batch, and B is their number.

    Attributes:
        x: clean images (views) in [0,1], float [B,C,H,W].
        labels: int64 [B]; -1 for an image without a label.
        ids: positions in the training split, int64 [B].
        epoch: number of the epoch, counted from 1.
        epochs: number of epochs of the training.
        decay: the learning rate of this epoch divided by that of the first.
        threat: the threat model of the inner maximisation.
        inner: the settings of the inner maximisation.
        student: the network that is trained.
        teacher: the teachers by role. Their weights are frozen, in eval mode.
        own: the method's own networks, copies of teachers that are trained along, and other modules, by name.
    """

    x: Tensor
    labels: Tensor
    ids: Tensor
    epoch: int
    epochs: int
    decay: float
    threat: ThreatModel
    inner: InnerAttack
    student: Network
    teacher: Mapping[str, Network]
    own: Mapping[str, Any]

    def cached(self, role: str = TEACHER) -> Output:
        """Returns a teacher's output on the clean views, from the cache; what is not declared in `cached` is None."""

    def attack(self, objective: Callable[..., Tensor], *args: Tensor) -> Tensor:
        """Returns x' [B,C,H,W], made by the protocol's inner maximisation on the student.

        If the loss of the batch is evaluated again, the same images are returned.

        Args:
            objective: called as objective(x', logits, *args), with the student's logits [B,K] at x'; returns the values
                [B] to be maximised. It may hold networks and numbers. It must not hold a tensor: a CUDA graph would
                replay that tensor's first values.
            args: the tensors that the objective uses.
        """

    def starting_noise(self) -> Tensor:
        """Returns the noise [B,C,H,W] from which the inner maximisation starts, for an attack of the method's own."""

    def once(self, make: Callable[[], Any]) -> Any:
        """Returns make(), or its first result if the loss of the batch is evaluated again.

        An attack of the method's own goes through it.
        """

    def uniform(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Draws random numbers in [0,1), [B, *shape], the same for an image however many processes share the batch."""

    def gather(self, values: Tensor) -> Tensor:
        """Returns the rows of all processes, in the order of the batch. Gradients flow back to each process."""

    def mean(self, values: Tensor) -> Tensor:
        """Returns the mean of values [B, ...] over the whole batch of all processes."""

    def minimum(self, values: Tensor) -> Tensor:
        """Returns the minimum of values [B, ...] over the whole batch of all processes."""

    def maximum(self, values: Tensor) -> Tensor:
        """Returns the maximum of values [B, ...] over the whole batch of all processes."""


@dataclass(frozen=True)
class EpochEnd:
    """The end of an epoch, where a method may update its state.

    Args:
        own: as in `TrainingStep`.
        epoch: number of the epoch that ended, counted from 1.
        epochs: number of epochs of the training.
        decay: the learning rate of this epoch divided by that of the first.
        next_decay: the same for the next epoch; that of the last epoch after the last.
    """

    own: Mapping[str, Any]
    epoch: int
    epochs: int
    decay: float
    next_decay: float


class Method(BaseModel):
    """Base of all methods. The annotated fields of a subclass are the settings that an experiment file may give."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    terms: ClassVar[tuple[str, ...]]  # names of the terms that `loss` may return

    def teachers(self) -> dict[str, TeacherCalls]:
        """Returns how the method asks its teachers, by role; empty for a method without a teacher.

        A method that asks one teacher calls its role `teacher`.
        """
        return {}

    def needs_labels(self) -> bool:
        """Returns False if the method can train on images without labels."""
        return True

    def networks(self, student: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Returns the architectures, `{"name": ..., **arguments}`, of networks that are trained along, by name.

        Args:
            student: the architecture of the student.
        """
        return {}

    def build(self, sizes: Sizes, generator: torch.Generator) -> dict[str, nn.Module]:
        """Builds the method's other modules, by name: projection heads, memory banks, weights of tasks.

        They are moved to the device, saved, resumed and, their parameters, trained. State is a buffer, updated in place
        and to the same values in all processes.
        """
        return {}

    def optimisation(self, training: Training) -> dict[str, Training]:
        """Returns the optimiser, learning rate and schedule of own modules that differ from the student's, by name."""
        return {}

    def phases(self) -> tuple[int, ...]:
        """Returns the first epoch of each phase in which the same networks are called; the plan counts one step each.

        It starts with 1, in ascending order.
        """
        return (1,)

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official | None:
        """Returns how the released code trains, or None if the method has no official protocol.

        Args:
            classes: number of classes of the dataset.
            architecture: name of the student's architecture.
        """
        return None

    @abstractmethod
    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes the terms of the loss of one batch; training lowers the sum of weight x batch mean."""

    def after_epoch(self, end: EpochEnd) -> None:
        """Updates the method's state after an epoch."""

    @property
    def cached(self) -> tuple[tuple[str, str], ...]:
        """(role, kind) of each output that the method takes from the cache."""
        return tuple((role, kind) for role, calls in self.teachers().items() for kind in calls.cached)


def misclassification(x: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Computes the objective of most inner maximisations: the cross-entropy, [B].

    Args:
        x: x', unused.
        logits: the student's logits at x', [B,K].
        labels: int64 [B].
    """
    return cross_entropy(logits, labels)
