"""The evaluation of a method's loss on one batch: the networks, attacks and draws that a method asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from robust_distillation.attacks.core import direction, pgd, project, starting_noise
from robust_distillation.cuda_graph import HeldTensorError, held_values
from robust_distillation.device import to_device
from robust_distillation.methods import TEACHER, TeacherCalls
from robust_distillation.models.frozen import frozen
from robust_distillation.models.output import Output, output
from robust_distillation.randomness import generator
from robust_distillation.training.batches import Batch
from robust_distillation.training.schedule import factor
from robust_distillation.training.teacher import Teacher

if TYPE_CHECKING:
    from robust_distillation.training.trainer import Trainer

Calls = Counter[tuple[str, str, str]]  # (group, name, kind of call) of the calls of networks in a step
STUDENT = ("student", "student")


class TrainedNetwork:
    """A network that is trained, as a method calls it. It counts its calls. Implements `methods.Network`.

    Attributes:
        model: the wrapped network.
        name: (group, name) under which the calls are counted, for example `("own", "head")`.
        calls: the counter, which each call increments by 1 under (group, name, kind).
    """

    def __init__(self, model: nn.Module, name: tuple[str, str], calls: Calls):
        """Wraps a network.

        Args:
            model: network with `features` and `classifier`, which is trained.
            name: (group, name) under which the calls are counted: `("student", "student")` or `("own", NAME)`.
            calls: counter of the calls of networks on this batch, changed in place by each call.
        """
        self.model, self.name, self.calls = model, name, calls

    @property
    def replay_key(self) -> nn.Module:
        """The wrapped network. A captured CUDA graph is replayed only for an attack on the same one."""
        return self.model

    def __call__(self, x: Tensor, *, train: bool = False) -> Output:
        """Computes logits [B,K] and features [B,D] of images `x` [B,C,H,W].

        With `train` True the network runs in its current mode, and gradients flow into the weights, unless gradients
        are disabled. Otherwise it runs in eval mode with frozen weights, and both are restored afterwards.
        """
        self.calls[(*self.name, "train" if train and torch.is_grad_enabled() else kind_of(x))] += 1
        if train and kind_of(x) == "attack":
            self.calls[(*self.name, "ask")] += 1  # a gradient in the images costs as much as a forward pass
        if train:
            return output(self.model, x)
        with frozen(self.model):
            return output(self.model, x)

    def update_statistics(self, x: Tensor) -> None:
        """Runs a forward pass on images `x` [B,C,H,W] without gradient, in the network's current mode.

        In train mode this updates batch norm's running statistics. The output is discarded.
        """
        self.calls[(*self.name, "ask")] += 1
        with torch.no_grad():
            self.model(x)

    @torch.no_grad()
    def follow(self, other: TrainedNetwork, decay: float) -> None:
        """Moves all weights and running statistics towards those of another network, in place.

        Each becomes `decay` x its value + (1 - `decay`) x that of the other network. Batch norm's count of batches is
        copied.

        Args:
            other: a network of the same architecture.
            decay: factor in [0, 1]; 0 copies the other network.
        """
        values = other.model.state_dict()
        for name, own in self.model.state_dict().items():
            own.copy_(decay * own + (1 - decay) * values[name] if own.is_floating_point() else values[name])


class FrozenTeacher:
    """A teacher, as a method calls it. It counts its calls and refuses those that the method does not declare.
    Implements `methods.Network`, but for `update_statistics` and `follow`.

    Attributes:
        teacher: the teacher's network and cached outputs.
        role: name under which the method calls the teacher, for example `teacher` or `robust`.
        declared: the calls that the method declares: `cached` outputs, and whether the network is called `live`
            (without gradient) or with `gradient` in the images.
        step: the batch in training, whose counter `calls` each call increments by 1 under ("teacher", role, kind).
    """

    def __init__(self, teacher: Teacher, role: str, declared: TeacherCalls, step: BatchStep):
        """Wraps a teacher.

        Args:
            teacher: the network and the cached outputs.
            role: name under which the method calls the teacher, for example `teacher` or `robust`.
            declared: the calls that the method declares, as `method.teachers()` returns them for this role.
            step: the batch in training. If its loss is evaluated again, calls without gradient return the outputs of
                the first evaluation.
        """
        self.teacher, self.role, self.declared, self.step = teacher, role, declared, step

    @property
    def replay_key(self) -> nn.Module | None:
        """The teacher's network; None if it is not loaded. A captured CUDA graph is replayed only for an attack that
        uses the same one.
        """
        return self.teacher.network

    def __call__(self, x: Tensor, *, train: bool = False) -> Output:
        """Computes logits [B,K] and features [B,D] of images `x` [B,C,H,W] by the teacher's network.

        Raises:
            TypeError: `train` is True; or the method does not declare the kind of call: `gradient` if `x` requires a
                gradient, else `live`.
        """
        if train:
            raise TypeError(
                f"teacher {self.role!r} is not trained: declare trained=True and call step.own[{self.role!r}]"
            )
        kind = kind_of(x)
        needed = "gradient" if kind == "attack" else "live"
        if not getattr(self.declared, needed) or self.teacher.network is None:
            raise TypeError(f"the call of teacher {self.role!r} is not declared: give it {needed}=True in teachers()")
        if kind == "ask" and self.step.repeated:
            return self.step.once(lambda: self._answer(x, kind))
        return self._answer(x, kind)

    def _answer(self, x: Tensor, kind: str) -> Output:
        self.step.calls["teacher", self.role, kind] += 1
        return self.teacher(x)


def kind_of(x: Tensor) -> str:
    """Returns the kind of a call, under which it is counted: `attack` if images `x` require a gradient and gradients
    are enabled, else `ask`.
    """
    return "attack" if x.requires_grad and torch.is_grad_enabled() else "ask"


class _Result(NamedTuple):
    """Result of a call of `BatchStep.once`, kept for later evaluations of the loss.

    Attributes:
        value: the result.
        counts: the number of calls of each kind, after it.
        moved: buffers that it moved, with their values before and after it, by name.
    """

    value: Any
    counts: dict[str, int]
    moved: dict[str, tuple[Tensor, Tensor]]


class BatchStep:
    """One batch in training, as a method receives it. Implements `methods.TrainingStep`, whose docstring describes it.

    The loss can be evaluated several times on the same batch, with the same adversarial images and random numbers; see
    `evaluate`.

    Attributes:
        calls: counter of the calls of networks, by (group, name, kind); see `counting.calls_in_step`.
        batch: the batch, with this process's rows of it.
        rows: the places of this process's images in the whole batch.
        total: number of images in the whole batch of all processes.
        x, labels, targets, ids, epoch, epochs, progress, decay, threat, inner, student, teacher, own: what the method
            uses: images, labels, smoothed targets, positions of the images, epoch, settings and networks, as
            `methods.TrainingStep` describes them.
    """

    def __init__(self, trainer: Trainer, batch: Batch):
        """Prepares the batch for the method. Computes nothing.

        Args:
            trainer: the networks, the method and the settings.
            batch: the batch, with this process's rows of it.
        """
        self._trainer, self.batch = trainer, batch
        self.rows = self._rows = trainer.group.shard(len(batch.ids))
        self._counts: dict[str, int] = {}  # of this evaluation
        self._results: dict[int, _Result] = {}  # of `once`, by the number of its call
        self._before: dict[str, Tensor] | None = None  # all buffers as they were before a repeatable evaluation
        self._after: dict[str, Tensor] = {}  # all buffers as the first evaluation left them
        self._evaluations = 0
        self._in_once = False
        self.calls: Calls = Counter()
        settings, declared = trainer.settings, trainer.method.teachers()
        self.x, self.labels = batch.x, batch.labels
        self.ids = to_device(batch.ids[self._rows], batch.labels.device)
        self.epoch, self.epochs = batch.epoch, settings.epochs
        self.progress = ((batch.epoch - 1) * batch.steps + batch.number) / (settings.epochs * batch.steps)
        self.decay = factor(settings, batch.epoch, batch.number, batch.steps)
        self.inner = settings.inner_attack
        eps = self.inner.eps
        self.threat = trainer.threat_model if eps is None else trainer.threat_model.model_copy(update={"eps": eps})
        self.total = len(batch.ids)
        self.targets = self.labels
        if settings.label_smoothing:
            self.targets = smoothed(self.labels, trainer.student.classifier.out_features, settings.label_smoothing)
        self.student = TrainedNetwork(trainer.student, STUDENT, self.calls)
        self.teacher = {
            role: FrozenTeacher(trainer.teachers[role], role, calls, self) for role, calls in declared.items()
        }
        self._declared = declared
        self.own: Mapping[str, Any] = trainer.own_networks(self.calls)

    def evaluate(self, repeatable: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the loss of the batch. It updates batch norm's running statistics, but no weights.

        Args:
            repeatable: True if the loss will be evaluated again on this batch. The first evaluation then keeps a copy
                of all buffers as they were before it. Each later evaluation starts from that copy and uses the same
                adversarial images, teachers' outputs and random numbers; `restore` undoes its moves of buffers. Later
                evaluations ignore this argument.

        Returns:
            The loss, a differentiable tensor of no dimensions, and the detached batch mean of each loss term by name.
            With several processes both are means over the rows of this process.

        Raises:
            RuntimeError: the loss was evaluated before with `repeatable` False.
            TypeError: the method makes a call that it does not declare, or its terms have a wrong form.
            UserError: a term is not finite in the first optimisation step of the training.
        """
        module, self._counts = self._trainer.module, {}
        if self._evaluations == 0 and repeatable:
            self._before = copied_buffers(module)
        self._evaluations += 1
        if self._evaluations > 1:
            if self._before is None:
                raise RuntimeError("a loss is evaluated again only if its first evaluation was `repeatable`")
            self._after = self._after or copied_buffers(module)
            put_buffers(module, self._before)
        return self._trainer.reduced(self)

    def restore(self) -> None:
        """Sets all buffers to what the first evaluation left. Called after the backward pass of a later evaluation.

        So batch norm's statistics and the method's state change only once for a batch. Without this call they stay as
        the last evaluation changed them.
        """
        put_buffers(self._trainer.module, self._after)

    def cached(self, role: str = TEACHER) -> Output:
        """Returns a teacher's output on the clean views of this process. It is read from the cache, or computed by the
        network if the teacher has no cache.

        Args:
            role: name under which the method calls the teacher, for example `robust`.

        Returns:
            Logits [B,K] and features [B,D]; each is None if the method does not declare it in `TeacherCalls.cached`.

        Raises:
            TypeError: the method declares no cached output for this role.
        """
        kinds = self._declared[role].cached if role in self._declared else ()
        if not kinds:
            raise TypeError(f"the cached output of teacher {role!r} is not declared: give its kinds in teachers()")

        def read() -> Output:
            for kind in kinds:
                self.calls["cache", role, kind] += 1
            ids, views = self.batch.ids[self._rows], self.batch.view_ids[self._rows]
            return self._trainer.teachers[role].clean(self.x, ids, views)

        answer = self.once(read) if self.repeated else read()
        return Output(*(getattr(answer, kind) if kind in kinds else None for kind in Output._fields))

    def attack(
        self, objective: Callable[..., Tensor], *args: Tensor, noise: Tensor | None = None, **changes: Any
    ) -> Tensor:
        """Runs projected gradient ascent on the student, with the settings `training.inner_attack` and the starting
        noise of this batch. On a GPU it is replayed as a CUDA graph.

        If the loss is evaluated again, the images of the first evaluation are returned.

        Args:
            objective: called as objective(x', logits, *args), with the student's logits [B,K]; returns the values [B]
                to maximise. It must not hold a tensor.
            args: further tensors for the objective, such as labels.
            noise: noise [B,C,H,W] that is added to x at the start; None: `starting_noise()`.
            changes: settings that take the place of those of `training.inner_attack`, such as `steps=1`. An `eps` of
                math.inf stands for no ball: the images are projected onto [0,1] only.

        Returns:
            Adversarial images x' [B,C,H,W] in [0, 1].

        Raises:
            TypeError: the objective holds a tensor, for example in a closure: a CUDA graph would replay that tensor's
                first values.
        """
        try:
            held_values(objective)
        except HeldTensorError as error:
            raise TypeError(
                f"method {type(self._trainer.method).__name__}: the objective of its attack holds a tensor, "
                f"{error.place}. Give it to step.attack as an argument: a CUDA graph would replay its first values"
            ) from None
        inner = self.inner.model_copy(update=changes)
        threat = self.threat.model_copy(update={"eps": changes["eps"]}) if "eps" in changes else self.threat

        def made() -> Tensor:
            self.calls[(*STUDENT, "attack")] += inner.steps
            return pgd(
                self._trainer.student,
                self.x,
                objective,
                threat,
                steps=inner.steps,
                step_size=inner.step_size,
                noise=self.starting_noise() if noise is None else noise,
                mode=inner.mode,
                project_start=inner.project_start,
                objective_args=args,
                replay=self._trainer.replay,
            )

        return self.once(made)

    @property
    def repeated(self) -> bool:
        """True if results are kept for a later evaluation of the loss: it is repeatable, and no `once` is running."""
        return self._before is not None and not self._in_once

    def starting_noise(self) -> Tensor:
        """Draws the noise [B,C,H,W] from which the inner maximisation starts, for the rows of this process.

        Each further call in the same evaluation draws other noise.
        """
        shard = self._rows, len(self.batch.ids)
        return starting_noise(self.x, self.threat, self.inner.start, self._generator("attack"), shard)

    def ascend(self, images: Tensor, gradient: Tensor) -> Tensor:
        """Moves images by one step of the inner maximisation, and projects them onto the ball around x and onto [0,1].

        Args:
            images: images [B,C,H,W] near x.
            gradient: gradient of the objective with respect to them, [B,C,H,W].

        Returns:
            New images [B,C,H,W], without gradient.
        """
        moved = images.detach() + self.inner.step_size * direction(gradient, self.threat)
        return project(self.x, moved, self.threat)

    def once(self, make: Callable[[], Any]) -> Any:
        """Calls `make` without arguments in the first evaluation of the loss, and returns that result in all later
        evaluations.

        The n-th call of `once` in an evaluation returns the result of the n-th call in the first one, and moves batch
        norm's running statistics as that one did.
        """
        number, module = self._number("once"), self._trainer.module
        known = self._results.get(number)
        if known is None:
            before = None if self._before is None else copied_buffers(module)
            outermost, self._in_once = not self._in_once, True
            try:
                value = make()
            finally:
                self._in_once = not outermost
            moved = {} if before is None else buffer_moves(module, before)
            known = self._results[number] = _Result(value, dict(self._counts), moved)
        else:
            replay_moves(module, known.moved)
        self._counts = dict(known.counts)
        return known.value

    def uniform(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Draws uniform random numbers in [0, 1), one row for each image of this process. They are drawn for the whole
        batch, so that they do not depend on the number of processes.

        Args:
            shape: shape of each image's numbers; empty for one number an image.
            dtype: a floating-point dtype; None for torch's default.

        Returns:
            A tensor [B, *shape] on the device of the images. Each further call in the same evaluation draws other
            numbers.
        """
        draws = torch.rand(len(self.batch.ids), *shape, generator=self._generator("method"), dtype=dtype)
        return to_device(draws[self._rows], self.x.device)

    def _generator(self, purpose: str) -> torch.Generator:
        """Returns the generator of the next draw for a purpose: the same ones in each evaluation."""
        number = self._number(purpose)
        more = (number,) if number else ()
        return generator(self._trainer.seed, purpose, self.epoch, self.batch.number, *more)

    def _number(self, what: str) -> int:
        """Counts the calls of one kind in this evaluation, from 0."""
        number = self._counts.get(what, 0)
        self._counts[what] = number + 1
        return number

    def gather(self, values: Tensor) -> Tensor:
        """Concatenates the rows of `values` [B, ...] of all processes, in the order of the batch. Gradients flow back
        to each process.
        """
        return self._trainer.group.gather_rows(values, len(self.batch.ids))

    def mean(self, values: Tensor) -> Tensor:
        """Returns the mean of all numbers in `values` [B, ...], over all processes, as a tensor of no dimensions."""
        return self.gather(values).mean()

    def minimum(self, values: Tensor) -> Tensor:
        """Returns the smallest number in `values` [B, ...], over all processes, as a tensor of no dimensions."""
        return self.gather(values).amin()

    def maximum(self, values: Tensor) -> Tensor:
        """Returns the largest number in `values` [B, ...], over all processes, as a tensor of no dimensions."""
        return self.gather(values).amax()


def smoothed(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Returns the targets (1 - s) x one-hot + s / K of label smoothing.

    Args:
        labels: int64 [B]; -1 for an image without a label, whose row is 0.
        classes: number of classes K.
        smoothing: s, in [0, 1).

    Returns:
        Probabilities, float32 [B,K].
    """
    known = (labels >= 0).float()[:, None]
    one_hot = torch.nn.functional.one_hot(labels.clamp(min=0), classes).float()
    return known * ((1 - smoothing) * one_hot + smoothing / classes)


def copied_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Returns a copy of all buffers of `module`, by name."""
    return {name: buffer.clone() for name, buffer in module.named_buffers()}


def buffer_moves(module: nn.Module, before: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns (value in `before`, copy of the present value) of each buffer of `module` that differs, by name."""
    return {
        name: (before[name], buffer.clone())
        for name, buffer in module.named_buffers()
        if not torch.equal(before[name], buffer)
    }


@torch.no_grad()
def replay_moves(module: nn.Module, moved: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Moves buffers of a module again, in place.

    Args:
        module: the module.
        moved: values before and after the first move, by name. A buffer that has the value from before gets the one
            from after; any other is moved by their difference.
    """
    buffers = dict(module.named_buffers())
    for name, (before, after) in moved.items():
        buffer = buffers[name]
        buffer.copy_(after if torch.equal(buffer, before) else buffer + (after - before))


@torch.no_grad()
def put_buffers(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copies values into all buffers of a module, in place.

    Args:
        module: the module to change.
        values: the new value of each buffer, by its name in `named_buffers()`. Other names are ignored.

    Raises:
        KeyError: a buffer has no value.
    """
    for name, buffer in module.named_buffers():
        buffer.copy_(values[name])
