"""The contract between a method and the training loop.

A method declares how it asks its teachers, and computes the loss of one batch from networks that it calls itself. The
order of its train-mode calls is the order in which batch norm's running statistics are updated. It returns named,
unreduced loss terms. The training loop reduces and weights them, so that the scale of a divergence is decided in one
place.

S is the student, T a teacher, x a clean image and x' an adversarial image. B is the number of images of the batch, K
the number of classes, D the width of the features.
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
    """Declares the calls that a method makes to one of its teachers.

    The declaration decides what the cache stores, which networks are loaded and what the plan counts. A call that is
    not declared is refused when it is made.

    Attributes:
        cached: outputs of T(x) on clean views that are read from the cache: `logits`, `features`, both or none.
        live: True if the network is called without gradient on images that no cache holds, such as x'.
        gradient: True if the network is called on images that require a gradient, inside an attack for example.
        trained: True if a copy of the network is trained along with the student; the copy is `step.own[ROLE]`.
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
    """One named part of a loss. The loss of a batch is the sum of weight x batch mean over its terms.

    Attributes:
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
    """Settings with which a method's released code trains: the `official` protocol.

    Attributes:
        training: values of `settings.Training`; a key that is left out keeps its default.
        settings: values of the method's own settings that differ from their defaults.
    """

    training: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sizes:
    """Sizes that a method's own modules depend on.

    Attributes:
        samples: number of training images.
        classes: number of classes K.
        labels: labels of the training split, int64 [samples]; -1 for an image without a label.
        shape: (channels, height, width) of an image.
        student_features: width of the student's penultimate features.
        teacher_features: width of the features of each teacher, by role; 0 if the method does not take them from the
            cache.
    """

    samples: int
    classes: int
    labels: Tensor = field(repr=False)
    shape: tuple[int, int, int]
    student_features: int
    teacher_features: Mapping[str, int]


class Network(Protocol):
    """A student, teacher or own network, as a method calls it."""

    def __call__(self, x: Tensor, *, train: bool = False) -> Output:
        """Computes logits [B,K] and features [B,D] of images x [B,C,H,W].

        Args:
            x: images; normally in [0,1], which is not enforced.
            train: True: batch norm is in train mode, and gradients flow into the weights; teachers refuse it. False:
                batch norm is in eval mode and the weights are frozen; gradients flow into x if x requires one.
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
        """Returns a teacher's output on the clean views x, read from the cache.

        An output (logits or features) that the method does not declare in `TeacherCalls.cached` is None.
        """

    def attack(self, objective: Callable[..., Tensor], *args: Tensor) -> Tensor:
        """Returns x' [B,C,H,W], made by the protocol's inner maximisation on the student.

        If the loss of the batch is evaluated again, the same images are returned.

        Args:
            objective: called as objective(x', logits, *args), with the student's logits [B,K] at x'; returns the values
                [B] to be maximised. It may refer to networks and numbers. It must not refer to a tensor other than its
                arguments: a CUDA graph would replay that tensor's first values.
            args: the tensors that the objective needs, such as labels or the teacher's logits.
        """

    def starting_noise(self) -> Tensor:
        """Returns the noise [B,C,H,W] from which the inner maximisation starts.

        Only a method with its own attack needs it; `attack` draws it by itself.
        """

    def once(self, make: Callable[[], Any]) -> Any:
        """Returns make(), or its first result if the loss of the batch is evaluated again.

        An optimiser may evaluate the loss of a batch several times. A method with its own attack passes that attack as
        `make`, so that x' is made once.
        """

    def uniform(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Draws random numbers in [0,1), [B, *shape], the same for an image however many processes share the batch."""

    def gather(self, values: Tensor) -> Tensor:
        """Returns the rows of `values` of all processes, in the order of the batch. Gradients flow back to each
        process.
        """

    def mean(self, values: Tensor) -> Tensor:
        """Returns the mean of values [B, ...] over the whole batch of all processes."""

    def minimum(self, values: Tensor) -> Tensor:
        """Returns the minimum of values [B, ...] over the whole batch of all processes."""

    def maximum(self, values: Tensor) -> Tensor:
        """Returns the maximum of values [B, ...] over the whole batch of all processes."""


@dataclass(frozen=True)
class EpochEnd:
    """State of the training at the end of an epoch, when a method may update its own.

    Attributes:
        own: the method's own networks and modules, as in `TrainingStep`.
        epoch: number of the epoch that ended, counted from 1.
        epochs: number of epochs of the training.
        decay: the learning rate of this epoch divided by that of the first.
        next_decay: the learning rate of the next epoch divided by that of the first; after the last epoch equal to
            `decay`.
    """

    own: Mapping[str, Any]
    epoch: int
    epochs: int
    decay: float
    next_decay: float


class Method(BaseModel):
    """Base class of all methods. The annotated fields of a subclass are the settings that an experiment may give."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    terms: ClassVar[tuple[str, ...]]  # names of the terms that `loss` may return

    def teachers(self) -> dict[str, TeacherCalls]:
        """Returns the declared calls to each teacher, by role; empty for a method without a teacher.

        A role is a name under which the method asks a teacher. A method with one teacher calls its role `TEACHER`.
        """
        return {}

    def needs_labels(self) -> bool:
        """Returns False if the method can train on images without labels."""
        return True

    def networks(self, student: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Returns the architectures, `{"name": ..., **arguments}`, of networks that are trained along, by name.

        Each is built with fresh weights and is `step.own[NAME]`.

        Args:
            student: the architecture of the student.
        """
        return {}

    def build(self, sizes: Sizes, generator: torch.Generator) -> dict[str, nn.Module]:
        """Builds the method's other modules, by name: projection heads, memory banks, weights of tasks.

        They are moved to the device, saved and resumed. Their parameters are trained. A state that is not trained is a
        buffer, updated in place and to the same values in all processes. Each module is `step.own[NAME]`.

        Args:
            sizes: number of images and classes, shape of an image, widths of features.
            generator: the source of all random initial values.
        """
        return {}

    def optimisation(self, training: Training) -> dict[str, Training]:
        """Returns the training settings of own modules that differ from the student's, by name: optimiser, learning
        rate, schedule.

        All other own modules are trained by the student's optimiser.

        Args:
            training: the training settings of the student.
        """
        return {}

    def phases(self) -> tuple[int, ...]:
        """Returns the first epoch of each phase, in ascending order, starting with 1.

        A phase is a run of epochs in which every step makes the same calls of networks. The plan counts one step of
        each.
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
        """Computes the terms of the loss of one batch. Training minimises the sum of weight x batch mean."""

    def after_epoch(self, end: EpochEnd) -> None:
        """Updates the method's state after an epoch."""

    @property
    def cached(self) -> tuple[tuple[str, str], ...]:
        """Pairs (role, kind) of each output that the method reads from the cache; kind is `logits` or `features`."""
        return tuple((role, kind) for role, calls in self.teachers().items() for kind in calls.cached)


def misclassification(x: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Computes the objective of most inner maximisations: the cross-entropy of the student at x', [B].

    Args:
        x: x' [B,C,H,W]; not used.
        logits: the student's logits at x', [B,K].
        labels: int64 [B].
    """
    return cross_entropy(logits, labels)
