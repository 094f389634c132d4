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
    """Declaration of the calls that a method makes to one of its teachers, such as `TeacherCalls(live=True)`.

    The declaration decides which outputs of the teacher are cached, whether its network is loaded, and how many calls
    the plan of an experiment counts. A call that is not declared raises TypeError when it is made.

    T is the teacher. A clean view x is an augmented training image; x' is an adversarial image.

    Attributes:
        cached: the outputs T(x) on clean views that are computed before the training and read from files: a tuple of
            `logits` and `features`, one of them, or () for none. If the option `cache` of the augmentation is `live`,
            the teacher's network computes them during the training instead.
        live: True if the network is called without gradient on images for which no stored output exists, such as x'.
        gradient: True if the network is called on images that require a gradient, for example inside an attack.
        trained: True if a copy of the network is trained together with the student. The copy is `step.own[role]`, where
            `role` is the name under which the method calls this teacher, such as `robust`.
    """

    cached: tuple[str, ...] = ()
    live: bool = False
    gradient: bool = False
    trained: bool = False

    @property
    def loads_network(self) -> bool:
        """True if a training loads the teacher's network; False if it reads stored outputs only."""
        return self.live or self.gradient or self.trained


class Term(NamedTuple):
    """One named part of a loss. The loss of a batch is the sum over its terms of `weight` times the batch mean of
    `values`.

    `Method.loss` returns these objects.

    Attributes:
        name: column of the training curves (metrics.jsonl), such as `adversarial`; one of the names in the method's
            `terms`.
        values: unreduced values, float [B] for the B images of the batch.
        weight: factor of the batch mean in the loss: a number, or a tensor of no dimensions.
        divergence: True for a divergence that is summed over the classes, to which the setting `training.kl_scale`
            applies: the training loop divides its mean by 1 (`sum`), the number of classes (`mean`) or 10 (`tenth`).
    """

    name: str
    values: Tensor
    weight: float | Tensor = 1.0
    divergence: bool = False


@dataclass(frozen=True)
class Official:
    """Settings with which the released code of a method trains. They are used if an experiment file has `protocol:
    official`.

    Attributes:
        training: values of the section `training` of an experiment file (fields of `settings.Training`), such as
            {"epochs": 300, "batch_size": 128}, with nested dicts for `inner_attack` and `selection`. A key that is left
            out keeps its default.
        settings: values of the method's own settings that differ from their defaults, such as {"log_constant": 1e-5}.
    """

    training: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sizes:
    """Sizes and labels of the training data and networks, from which a method builds its own modules.

    Attributes:
        samples: number of training images.
        classes: number of classes K.
        labels: labels of the training split, int64 [samples]; -1 for an image without a label.
        shape: (channels, height, width) of an image.
        student_features: width of the student's penultimate features.
        teacher_features: width of the features of each teacher, by role (the name under which the method calls one of
            its teachers, such as `robust`); 0 if the method reads only cached logits of this teacher.
    """

    samples: int
    classes: int
    labels: Tensor = field(repr=False)
    shape: tuple[int, int, int]
    student_features: int
    teacher_features: Mapping[str, int]


class Network(Protocol):
    """A student, a teacher or a method's own network, as the training loop passes it to a method: a function of images.

    `network(x)` returns the named tuple (logits [B,K], features [B,D]), with B images, K classes and D features, with
    frozen weights and batch norm in eval mode; gradients flow into x. `network(x, train=True)` does the same with batch
    norm in train mode and gradients in the weights.
    """

    def __call__(self, x: Tensor, *, train: bool = False) -> Output:
        """Computes the logits and features of images.

        Args:
            x: images [B,C,H,W]; normally in [0,1], which is not enforced.
            train: True: batch norm is in train mode, and gradients flow into the weights. False: batch norm is in eval
                mode and the weights are frozen; gradients flow into x if x requires one.

        Returns:
            The output with `logits` [B,K] and `features` [B,D].

        Raises:
            TypeError: if a teacher is called with `train`, or in a way that the method does not declare.
        """

    def update_statistics(self, x: Tensor) -> None:
        """Updates batch norm's running statistics by a train-mode pass on images `x` [B,C,H,W], without gradient."""

    def follow(self, other: Network, decay: float) -> None:
        """Moves all weights and running statistics towards those of another network, as in an exponential average.

        Each becomes `decay` x its value + (1 - `decay`) x that of the other network. The method calls it inside
        `step.once`, so that it is done once for a batch. At the start of a batch the student has the weights that the
        optimiser gave it after the last one. A teacher that is not trained follows none.

        Args:
            other: a network of the same architecture, such as the student.
            decay: factor in [0, 1]; 0 copies the other network.
        """


class TrainingStep(Protocol):
    """One batch in training, as the training loop passes it to `Method.loss`: images, labels, networks, and the inner
    attack.

    With several processes x, labels and ids are the rows of this process, and B is their number.

    Attributes:
        x: clean views (augmented training images) in [0,1], float [B,C,H,W].
        labels: true classes, int64 [B]; -1 for an image without a label.
        targets: targets of the cross-entropy: `labels`, or with `training.label_smoothing` s > 0 the probabilities (1 -
            s) x one-hot + s / K for K classes, float [B,K].
        ids: positions of the images in the training split, int64 [B].
        rows: the places of this process's images in the whole batch; slice(0, B) with one process.
        total: number of images of the whole batch, of all processes.
        epoch: number of the epoch, counted from 1.
        epochs: number of epochs of the training.
        progress: share of the optimisation steps of the training that are done before this one, in [0, 1).
        decay: the learning rate of this optimisation step divided by `training.learning_rate`, in [0, 1].
        threat: norm (`linf` or `l2`) and radius eps of the inner maximisation. Its eps is `inner.eps` if that is set,
            else that of the experiment.
        inner: the settings of the inner maximisation, `training.inner_attack`: `steps` (of PGD), `step_size`, `start`
            (noise) and others.
        student: the network that is trained. `student(x, train=True)` returns its logits and features.
        teacher: the teachers' networks by role, the name under which the method calls one of its teachers, such as
            `teacher` or `robust`. Their weights are frozen, and they are in eval mode.
        own: by name, the method's own networks (`Method.networks`), the copies of teachers that are trained (their name
            is the role), and the modules of `Method.build`.
    """

    x: Tensor
    labels: Tensor
    targets: Tensor
    ids: Tensor
    rows: slice
    total: int
    epoch: int
    epochs: int
    progress: float
    decay: float
    threat: ThreatModel
    inner: InnerAttack
    student: Network
    teacher: Mapping[str, Network]
    own: Mapping[str, Any]

    def cached(self, role: str = TEACHER) -> Output:
        """Returns the stored output of a teacher on the clean views x (the augmented training images).

        Args:
            role: name under which the method calls the teacher, a key of `Method.teachers()`, such as `robust`. The
                default is `teacher`, the name of a single teacher.

        Returns:
            The named tuple of `logits` [B,K] and `features` [B,D], for B images, K classes and D features. One that the
            method does not declare in `TeacherCalls.cached` is None.

        Raises:
            TypeError: if the method declares no cached output of this teacher.
        """

    def attack(
        self, objective: Callable[..., Tensor], *args: Tensor, noise: Tensor | None = None, **changes: Any
    ) -> Tensor:
        """Makes adversarial images x' by the inner maximisation of the experiment's settings: PGD on the student.

        If the loss of the batch is evaluated again, the same images are returned.

        Args:
            objective: called as objective(x', logits, *args), with the student's logits [B,K] at x'; returns the values
                [B] to be maximised. It may refer to networks and numbers. It must not refer to a tensor other than its
                arguments: a CUDA graph would replay that tensor's first values.
            *args: the tensors that the objective needs, such as labels or the teacher's logits.
            noise: what is added to x at the start, [B,C,H,W]. None: `starting_noise()`.
            **changes: settings of the inner maximisation that this method fixes, in place of those of the experiment,
                such as `steps=1`; the names are those of `settings.InnerAttack`. An `eps` of math.inf: x' is projected
                onto [0,1] only.

        Returns:
            x' [B,C,H,W] in [0,1], within eps of x, without gradient.

        Raises:
            TypeError: if the objective refers to a tensor that is no argument.
        """

    def starting_noise(self) -> Tensor:
        """Draws the noise [B,C,H,W] that is added to x at the start of the inner maximisation.

        The setting `inner.start` (`training.inner_attack.start`) chooses it: `uniform` in the ball, `gaussian` (0.001
        times standard normal numbers) or `zero`. Only a method with its own attack calls this function; `attack` draws
        this noise without help. If the loss of the batch is evaluated again, the same noise is returned.
        """

    def ascend(self, images: Tensor, gradient: Tensor) -> Tensor:
        """Moves images by one step of the inner maximisation, as `attack` does in each of its steps.

        The step has the length `inner.step_size` along the direction of steepest ascent in the norm of `threat`. Then
        the images are projected onto the ball around x and onto [0,1]. With a gradient of zeros they are projected
        only. A method with its own attack calls this function.

        Args:
            images: images [B,C,H,W], near the clean images x.
            gradient: gradient of the objective with respect to the images, [B,C,H,W].

        Returns:
            New images [B,C,H,W] in [0,1], each within eps of its clean image, without gradient.
        """

    def once(self, make: Callable[[], Any]) -> Any:
        """Calls `make` in the first evaluation of the loss of the batch, and returns that result in all later ones.

        An optimiser may evaluate the loss of a batch several times. A method with its own attack passes that attack as
        `make`, so that x' is made once.

        Args:
            make: function without arguments, which returns any value.
        """

    def uniform(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Draws random numbers in [0, 1) for each image of the batch.

        They are the same for an image however many processes share the batch, and if the loss of the batch is evaluated
        again.

        Args:
            *shape: shape of the numbers of one image, for example 16 for 16 numbers; nothing for one number.
            dtype: type of the numbers; None: torch's default, float32.

        Returns:
            [B, *shape], on the device of x.
        """

    def gather(self, values: Tensor) -> Tensor:
        """Concatenates the rows of all processes. With one process it returns `values`.

        Args:
            values: the rows of this process, [B, ...].

        Returns:
            The rows of the whole batch, in its order. In the backward pass each process receives the gradients of its
            rows.
        """

    def mean(self, values: Tensor) -> Tensor:
        """Returns the mean of all entries of `values` over the whole batch of all processes.

        Args:
            values: the rows of this process, [B, ...].

        Returns:
            A tensor of no dimensions.
        """

    def minimum(self, values: Tensor) -> Tensor:
        """Returns the smallest entry of `values` over the whole batch of all processes.

        Args:
            values: the rows of this process, [B, ...].

        Returns:
            A tensor of no dimensions.
        """

    def maximum(self, values: Tensor) -> Tensor:
        """Returns the largest entry of `values` over the whole batch of all processes.

        Args:
            values: the rows of this process, [B, ...].

        Returns:
            A tensor of no dimensions.
        """


@dataclass(frozen=True)
class EpochEnd:
    """State of the training at the end of an epoch, when a method may update its own modules.

    Attributes:
        own: by name, the method's own networks (`Method.networks`), the copies of teachers that are trained (their name
            is the role under which the method calls the teacher), and the modules of `Method.build`.
        epoch: number of the epoch that ended, counted from 1.
        epochs: number of epochs of the training.
        decay: the learning rate at the start of this epoch divided by `training.learning_rate`, in [0, 1].
        next_decay: the same quotient for the start of the next epoch; after the last epoch equal to `decay`.
    """

    own: Mapping[str, Any]
    epoch: int
    epochs: int
    decay: float
    next_decay: float


class Method(BaseModel):
    """Base class of all distillation and training methods: the teachers, own modules and loss of one way to train a
    student.

    The annotated fields of a subclass are the settings that an experiment file may set under `methods.NAME`, with their
    defaults. They are keyword arguments of the class, and are checked. A subclass must define `loss` and `terms`; it
    overrides `teachers`, `networks`, `build` and the other functions of this class only where their defaults do not
    fit.

    Attributes:
        terms: class constant: the names of all terms that `loss` may return, columns of the training curves.

    Raises:
        pydantic.ValidationError: if a setting is unknown or its value is not allowed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    terms: ClassVar[tuple[str, ...]]  # names of the terms that `loss` may return

    def teachers(self) -> dict[str, TeacherCalls]:
        """Declares the calls that the method makes to each teacher: role to a TeacherCalls.

        A role is the name under which the method calls one of its teachers, such as `robust`. A method with one teacher
        uses the role `teacher` (the constant TEACHER). An example is {"teacher": TeacherCalls(cached=("logits",))}.
        Empty, the default, for a method without a teacher.
        """
        return {}

    def needs_labels(self) -> bool:
        """Returns True if the method needs a label for every training image, False if it trains without labels."""
        return True

    def networks(self, student: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Returns the architectures of the networks that are trained besides the student, by name; empty by default.

        Each is built with fresh weights and is `step.own[name]`. A network that is never called with `train` is not
        changed by an optimiser: it may follow another one, see `Network.follow`.

        Args:
            student: the architecture of the student, such as {"name": "resnet", "depth": 18, "width": 64}.

        Returns:
            Name of a network to its architecture, in the form of `student`.
        """
        return {}

    def build(self, sizes: Sizes, generator: torch.Generator) -> dict[str, nn.Module]:
        """Builds the method's other modules: projection heads, memory banks, weights of tasks; none by default.

        The training loop moves them to the device, saves and resumes them, and trains their parameters. A state that is
        not trained must be a buffer, updated in place and to the same values in all processes; one with a large row for
        each training image is a `methods.table.ImageTable`. Each module is `step.own[name]`.

        Args:
            sizes: number and labels of the training images, number of classes, shape of an image, widths of features.
            generator: the source of all random initial values.

        Returns:
            Name to module.
        """
        return {}

    def optimisation(self, training: Training) -> dict[str, Training]:
        """Returns the training settings of own modules that do not have the optimiser or schedule of the student.

        The student's optimiser trains all other own modules.

        Args:
            training: the training settings of the student: epochs, batch size, optimiser, learning rate, schedule and
                others.

        Returns:
            Name of the module to its training settings; empty by default.
        """
        return {}

    def phases(self) -> tuple[int, ...]:
        """Returns the first epoch of each phase, in ascending order, starting with 1.

        A phase is a range of epochs in which every optimisation step makes the same calls of networks. To estimate the
        cost of a training, the plan of an experiment counts the calls of one optimisation step in each phase. By
        default there is one phase: (1,).
        """
        return (1,)

    @classmethod
    def official(cls, classes: int, architecture: str) -> Official | None:
        """Returns the settings with which the method's released code trains, for `protocol: official`.

        Args:
            classes: number of classes of the dataset.
            architecture: name of the student's architecture, such as "wide_resnet".

        Returns:
            An Official: `training`, values of the section `training` of an experiment file, such as {"epochs": 300,
            "batch_size": 128}, and `settings`, values of the method's own settings. None, the default, if the method
            has no official protocol.
        """
        return None

    @abstractmethod
    def loss(self, step: TrainingStep) -> tuple[Term, ...]:
        """Computes the terms of the loss of one batch.

        Training minimises the sum over the terms of weight x batch mean. The order of the train-mode calls of a network
        is the order in which its batch norm statistics are updated.

        Args:
            step: the batch: `step.x` (augmented images), `step.labels`, `step.student` and `step.teacher` (networks),
                `step.cached()` (stored outputs of a teacher), `step.attack` (makes adversarial images) and others.

        Returns:
            The terms, at least one. Each is a Term: `name` (another one for each, from `terms`), `values` [B] that are
            not reduced, `weight`, and `divergence` (True if the scale `training.kl_scale` applies).
        """

    def after_epoch(self, end: EpochEnd) -> None:
        """Updates the method's own modules after an epoch; does nothing by default.

        Args:
            end: `end.own` (the method's own modules by name), `end.epoch` (number of the epoch that ended, from 1),
                `end.epochs` (number of epochs), and `end.decay` and `end.next_decay` (learning rate of this and of the
                next epoch, divided by `training.learning_rate`).
        """

    @property
    def cached(self) -> tuple[tuple[str, str], ...]:
        """The outputs of teachers that are computed before the training and read from files: pairs (role, kind).

        Example: (("teacher", "logits"),). A role is the name under which the method calls one of its teachers; kind is
        `logits` or `features`.
        """
        return tuple((role, kind) for role, calls in self.teachers().items() for kind in calls.cached)


def misclassification(x: Tensor, logits: Tensor, target: Tensor) -> Tensor:
    """Computes the objective of most inner maximisations: the cross-entropy of the student at adversarial images x'.

    A method passes this function to `TrainingStep.attack`, which calls it in each step of the attack.

    Args:
        x: x' [B,C,H,W]; not used, but part of the form of an objective.
        logits: the student's logits at x', [B,K].
        target: true classes, int64 [B], or probabilities, float [B,K]; usually `step.targets`.

    Returns:
        The cross-entropy of each image, [B], not averaged.
    """
    return cross_entropy(logits, target)
