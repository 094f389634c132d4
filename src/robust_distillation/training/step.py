"""The evaluation of a method's loss on one batch: the networks, attacks and draws that a method asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from robust_distillation.attacks.core import pgd, starting_noise
from robust_distillation.cuda_graph import HeldTensorError, held_values
from robust_distillation.device import to_device
from robust_distillation.methods import TEACHER, TeacherCalls
from robust_distillation.models.frozen import frozen
from robust_distillation.models.output import Output, output
from robust_distillation.randomness import generator
from robust_distillation.training.batches import Batch
from robust_distillation.training.teacher import Teacher

if TYPE_CHECKING:
    from robust_distillation.training.trainer import Trainer

Calls = Counter[tuple[str, str, str]]  # (group, name, kind of call) of the calls of networks in a step
STUDENT = ("student", "student")


class TrainedNetwork:
    """A network that is trained, as a method calls it: see `methods.Network`."""

    def __init__(self, model: nn.Module, name: tuple[str, str], calls: Calls):
        """Wraps a model.

        Args:
            model: the network that is trained.
            name: (group, name) under which its calls are counted.
            calls: the counter of the step.
        """
        self.model, self.name, self.calls = model, name, calls

    @property
    def replay_key(self) -> nn.Module:
        """The model, whose identity tells two captured attacks apart."""
        return self.model

    def __call__(self, x: Tensor, *, train: bool = False) -> Output:
        self.calls[(*self.name, "train" if train else kind_of(x))] += 1
        if train:
            return output(self.model, x)
        with frozen(self.model):
            return output(self.model, x)

    def update_statistics(self, x: Tensor) -> None:
        """Runs a train-mode pass without gradient."""
        self.calls[(*self.name, "ask")] += 1
        with torch.no_grad():
            self.model(x)


class FrozenTeacher:
    """A teacher as a method calls it; raises TypeError for a call that the method does not declare."""

    def __init__(self, teacher: Teacher, role: str, declared: TeacherCalls, calls: Calls):
        """Wraps a teacher.

        Args:
            teacher: the network and the cached outputs.
            role: the teacher's role in the method.
            declared: the calls that the method declares.
            calls: the counter of the step.
        """
        self.teacher, self.role, self.declared, self.calls = teacher, role, declared, calls

    @property
    def replay_key(self) -> nn.Module | None:
        """The teacher's network, whose identity tells two captured attacks apart; None without a network."""
        return self.teacher.network

    def __call__(self, x: Tensor, *, train: bool = False) -> Output:
        if train:
            raise TypeError(
                f"teacher {self.role!r} is not trained: declare trained=True and call step.own[{self.role!r}]"
            )
        kind = kind_of(x)
        needed = "gradient" if kind == "attack" else "live"
        if not getattr(self.declared, needed) or self.teacher.network is None:
            raise TypeError(f"the call of teacher {self.role!r} is not declared: give it {needed}=True in teachers()")
        self.calls["teacher", self.role, kind] += 1
        return self.teacher(x)


def kind_of(x: Tensor) -> str:
    """Returns `attack` for a call on images that require a gradient, `ask` for one without gradient."""
    return "attack" if x.requires_grad and torch.is_grad_enabled() else "ask"


class BatchStep:
    """One batch in training, as a method receives it: implements `methods.TrainingStep`.

    The loss can be evaluated several times on the same batch: `evaluate` replays images and random draws, and leaves
    buffers as the first evaluation did.
    """

    def __init__(self, trainer: Trainer, batch: Batch):
        self._trainer, self._batch = trainer, batch
        self._rows = trainer.group.shard(len(batch.ids))
        self._counts: dict[str, int] = {}  # of this evaluation
        self._results: list[tuple[Any, dict[str, int]]] = []  # of `once`, with the counts after it
        self._before: dict[str, Tensor] = {}
        self._evaluations = 0
        self.calls: Calls = Counter()
        settings, declared = trainer.settings, trainer.method.teachers()
        self.x, self.labels = batch.x, batch.labels
        self.ids = to_device(batch.ids[self._rows], batch.labels.device)
        self.epoch, self.epochs = batch.epoch, settings.epochs
        self.decay = trainer.decay(batch.epoch)
        self.inner = settings.inner_attack
        eps = self.inner.eps
        self.threat = trainer.threat_model if eps is None else trainer.threat_model.model_copy(update={"eps": eps})
        self.student = TrainedNetwork(trainer.student, STUDENT, self.calls)
        self.teacher = {
            role: FrozenTeacher(trainer.teachers[role], role, calls, self.calls) for role, calls in declared.items()
        }
        self._declared = declared
        self.own: Mapping[str, Any] = trainer.own_networks(self.calls)

    def evaluate(self, repeatable: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the loss of the batch and the mean of each term.

        Args:
            repeatable: True if the loss will be evaluated again on this batch. The first evaluation then keeps a copy
                of all buffers. Each later one starts from those, uses the same images and random numbers, and puts the
                buffers back to what the first left.
        """
        module, self._counts = self._trainer.module, {}
        if self._evaluations == 0 and repeatable:
            self._before = {name: buffer.clone() for name, buffer in module.named_buffers()}
        self._evaluations += 1
        if self._evaluations == 1:
            return self._trainer.reduced(self)
        if not self._before:
            raise RuntimeError("a loss is evaluated again only if its first evaluation was `repeatable`")
        after = {name: buffer.clone() for name, buffer in module.named_buffers()}
        put_buffers(module, self._before)
        try:
            return self._trainer.reduced(self)
        finally:
            put_buffers(module, after)

    def cached(self, role: str = TEACHER) -> Output:
        """Returns a teacher's declared outputs on this process's clean views."""
        kinds = self._declared[role].cached if role in self._declared else ()
        if not kinds:
            raise TypeError(f"the cached output of teacher {role!r} is not declared: give its kinds in teachers()")
        for kind in kinds:
            self.calls["cache", role, kind] += 1
        batch = self._batch
        answer = self._trainer.teachers[role].clean(self.x, batch.ids[self._rows], batch.view_ids[self._rows])
        return Output(*(getattr(answer, kind) if kind in kinds else None for kind in Output._fields))

    def attack(self, objective: Callable[..., Tensor], *args: Tensor) -> Tensor:
        """Runs PGD on the student from the step's starting noise; replayed as a CUDA graph on a GPU."""
        try:
            held_values(objective)
        except HeldTensorError as error:
            raise TypeError(
                f"method {type(self._trainer.method).__name__}: the objective of its attack holds a tensor, "
                f"{error.place}. Give it to step.attack as an argument: a CUDA graph would replay its first values"
            ) from None
        inner = self.inner

        def made() -> Tensor:
            self.calls[(*STUDENT, "attack")] += inner.steps
            return pgd(
                self._trainer.student,
                self.x,
                objective,
                self.threat,
                steps=inner.steps,
                step_size=inner.step_size,
                noise=self.starting_noise(),
                mode=inner.mode,
                project_start=inner.project_start,
                objective_args=args,
                replay=self._trainer.replay,
            )

        return self.once(made)

    def starting_noise(self) -> Tensor:
        """Draws this process's rows of the noise of the inner maximisation."""
        shard = self._rows, len(self._batch.ids)
        return starting_noise(self.x, self.threat, self.inner.start, self._generator("attack"), shard)

    def once(self, make: Callable[[], Any]) -> Any:
        """Calls `make` in the first evaluation and returns that result in all later ones."""
        number = self._number("once")
        if number == len(self._results):
            result = make()
            self._results.append((result, dict(self._counts)))
        result, self._counts = self._results[number][0], dict(self._results[number][1])
        return result

    def uniform(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Draws random numbers for the whole batch and returns this process's rows."""
        draws = torch.rand(len(self._batch.ids), *shape, generator=self._generator("method"), dtype=dtype)
        return to_device(draws[self._rows], self.x.device)

    def _generator(self, purpose: str) -> torch.Generator:
        """Returns the generator of the next draw for a purpose: the same ones in each evaluation."""
        number = self._number(purpose)
        more = (number,) if number else ()
        return generator(self._trainer.seed, purpose, self.epoch, self._batch.number, *more)

    def _number(self, what: str) -> int:
        """Counts the calls of one kind in this evaluation, from 0."""
        number = self._counts.get(what, 0)
        self._counts[what] = number + 1
        return number

    def gather(self, values: Tensor) -> Tensor:
        """Concatenates the rows of all processes."""
        return self._trainer.group.gather_rows(values, len(self._batch.ids))

    def mean(self, values: Tensor) -> Tensor:
        """Averages over the rows of all processes."""
        return self.gather(values).mean()

    def minimum(self, values: Tensor) -> Tensor:
        """Returns the minimum over the rows of all processes."""
        return self.gather(values).amin()

    def maximum(self, values: Tensor) -> Tensor:
        """Returns the maximum over the rows of all processes."""
        return self.gather(values).amax()


@torch.no_grad()
def put_buffers(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copies values into the buffers of a module, in place."""
    for name, buffer in module.named_buffers():
        buffer.copy_(values[name])
