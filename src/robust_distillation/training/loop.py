"""The training loop: epochs of views, the inner maximisation, the method's terms, one SGD step."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from robust_distillation.attacks.core import maximise
from robust_distillation.cuda_graph import Recorded
from robust_distillation.data.dataset import Dataset
from robust_distillation.data.views import ViewScheme, epoch_order
from robust_distillation.device import to_device
from robust_distillation.methods import Batch, Method, Sizes
from robust_distillation.models.frozen import frozen
from robust_distillation.models.output import Output, output
from robust_distillation.models.precision import looking
from robust_distillation.randomness import derived_seed, generator
from robust_distillation.resume import STOPPED, Work
from robust_distillation.settings import ThreatModel, Training
from robust_distillation.training.divergence import Losses, check_finite
from robust_distillation.training.parallel import Group
from robust_distillation.training.reduction import reduce
from robust_distillation.training.schedule import learning_rate, looked_at
from robust_distillation.training.selection import held_on_selection
from robust_distillation.training.state import Progress, packed, restored

log = logging.getLogger(__name__)


class Teacher(Protocol):
    """Where T(x) and T(x') come from: see cache.live and cache.store."""

    def clean(self, x: Tensor, index: Tensor, views: Tensor) -> Output: ...

    def __call__(self, x: Tensor) -> Output: ...


@dataclass
class Trainer:
    """All that one training step depends on. `step` may be called for any batch, in any order."""

    model: nn.Module
    method: Method
    settings: Training
    threat_model: ThreatModel
    seed: int
    state: nn.Module | None = None
    teacher: Teacher | None = None
    group: Group = field(default_factory=Group)
    optimizer: torch.optim.SGD = field(init=False)

    def __post_init__(self) -> None:
        self.recorded = Recorded() if self.group.size == 1 else None  # what processes tell each other is not recorded
        self.loss = Loss(self)
        if self.group.size > 1:
            # Where batch norm is local, every forward pass begins with the running statistics of the first process.
            self.loss = DistributedDataParallel(self.loss)
        parameters = list(self.model.parameters()) + (list(self.state.parameters()) if self.state else [])
        groups = [{"params": parameters}]
        if self.settings.weight_decay_on == "weights":
            groups = [
                {"params": [parameter for parameter in parameters if parameter.ndim > 1]},
                {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
            ]
        self.optimizer = torch.optim.SGD(
            groups,
            lr=self.settings.learning_rate,
            momentum=self.settings.momentum,
            weight_decay=self.settings.weight_decay,
        )

    def step(self, x: Tensor, labels: Tensor, index: Tensor, views: Tensor, epoch: int, step: int) -> dict[str, Tensor]:
        """One update on views x [B,C,H,W] in [0,1], returning detached scalars: the loss and each term's mean.

        x and labels lie on the model's device; index and views [B], which ask data and cache, on the CPU. In a group of
        processes all are given the whole batch's index and views, and their own rows of x and labels; what is returned
        is the process's part of the sums over all.
        """
        self.optimizer.zero_grad(set_to_none=True)
        loss, means = self.loss(x, labels, index, views, epoch, step)
        (loss * self.group.weight(len(index))).backward()
        self.optimizer.step()
        part = self.group.weight(len(index)) / self.group.size
        return {name: value * part for name, value in {"loss": loss.detach(), **means}.items()}

    def passes(
        self, x: Tensor, labels: Tensor, index: Tensor, views: Tensor, epoch: int, step: int, total: int
    ) -> dict[str, Output]:
        """The forward passes that the method needs, through the student in the order of `settings.passes`, each batch
        with its own batch norm statistics. total: images of the batch that this may be a share of."""
        needs, found = self.method.needs, {}
        if needs.teacher_logits or needs.teacher_features:
            found["teacher"] = self.teacher.clean(x, index, views)
        if needs.reference:
            with frozen(self.model), torch.no_grad():
                found["reference"] = output(self.model, x)
        if needs.adversarial:
            given = Batch(labels, to_device(index, labels.device), epoch=epoch, **found)
            inner = self.settings.inner_attack
            found["adversarial"] = adversarial = maximise(
                self.model,
                x,
                self.method.inner_objective,
                self.threat_model if inner.eps is None else self.threat_model.model_copy(update={"eps": inner.eps}),
                steps=inner.steps,
                step_size=inner.step_size,
                start=inner.start,
                generator=generator(self.seed, "attack", epoch, step),
                mode=inner.mode,
                project_start=inner.project_start,
                drawn=(self.group.rows(total), total),
                given=(given,),
                recorded=self.recorded,
            )
            if needs.teacher_adversarial:
                found["teacher_adversarial"] = self.teacher(adversarial)
        batches = {"clean": x, "adversarial": found.pop("adversarial", None)}
        for name in self.method.passes(self.settings.passes, epoch):
            if not getattr(needs, name):
                continue
            if name not in found:
                found[name] = output(self.model, batches[name])
            else:  # through again: only the running statistics move
                with torch.no_grad():
                    self.model(batches[name])
        return found


class Loss(nn.Module):
    """What a trainer lowers, as a module: so that DistributedDataParallel sees one forward pass, whatever passes it is
    made of."""

    def __init__(self, trainer: Trainer):
        super().__init__()
        self.model, self.state = trainer.model, trainer.state
        self._trainer = [trainer]  # no submodule of this

    def forward(
        self, x: Tensor, labels: Tensor, index: Tensor, views: Tensor, epoch: int, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and each term's mean."""
        [trainer] = self._trainer
        rows = trainer.group.rows(len(index))
        own = index[rows]
        passes = trainer.passes(x, labels, own, views[rows], epoch, step, len(index))
        draws = generator(trainer.seed, "method", epoch, step)
        batch = Batch(labels, to_device(own, labels.device), generator=draws, epoch=epoch, **passes)
        terms = trainer.method.loss_terms(batch, self.state)
        return reduce(terms, self.model.classifier.out_features, trainer.settings.kl_scale)


def method_state(method: Method, data: Dataset, model: nn.Module, teacher_features: int, seed: int) -> nn.Module | None:
    sizes = Sizes(len(data), len(data.info.classes), data.labels, model.classifier.in_features, teacher_features)
    return method.build_state(sizes, generator(seed, "state"))


def batches(
    data: Dataset,
    scheme: ViewScheme,
    settings: Training,
    seed: int,
    epoch: int,
    device: torch.device,
    first: int = 0,
    group: Group = Group(),  # noqa: B008 (immutable)
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """x, labels, index, views of each step of an epoch, from step `first` on; of x and labels the group's own rows."""
    views = scheme.epoch(seed, epoch, len(data))
    for index in epoch_order(seed, epoch, len(data)).split(settings.batch_size)[first:]:
        if settings.drop_last and len(index) < settings.batch_size:
            break
        own = index[group.rows(len(index))]
        there, chosen = (to_device(numbers, data.images.device) for numbers in (own, views[own]))
        yield data.views(scheme, there, chosen).to(device), data.labels[there].to(device), index, views[index]


def train(
    trainer: Trainer,
    data: Dataset,
    validation: Dataset,
    scheme: ViewScheme,
    device: torch.device,
    work: Work | None = None,
) -> Progress:
    """Trains for all epochs and chooses `best` on the images of `validation` (the test images only where the official
    protocol hands them over as such). The model is left as it is after the last.

    work: what was saved there is gone on from, and where this training stands is saved when it is time to and after
    every epoch. Raises Diverged once a loss or the weights are not finite; what is saved is from before.
    """
    settings, model, group, data = trainer.settings, trainer.model, trainer.group, data.to(device)
    group.check(len(data), settings.batch_size, settings.drop_last)
    saved = group.first(work and work.load())
    progress = restored(trainer, saved) if saved else Progress()
    counts, losses = progress.counts, Losses()

    def save() -> None:
        losses.check(counts)
        check_finite(model, counts)
        sums = group.gathered(progress.sums)
        if work:
            work.save(packed(trainer, progress, sums))

    def save_if_due(due: bool = False) -> None:
        stopping = bool(work) and work.stopping  # asked once: a signal may come at any moment
        due, stopping = group.first((due or stopping or (bool(work) and work.due()), stopping))
        if due:
            save()
        if stopping:  # the first process has ended in `save`
            raise SystemExit(STOPPED)

    for epoch in range(counts.epoch, settings.epochs + 1):
        rate = learning_rate(settings, epoch)
        for options in trainer.optimizer.param_groups:
            options["lr"] = rate
        model.train()
        for batch in batches(data, scheme, settings, trainer.seed, epoch, device, counts.steps, group):
            found = trainer.step(*batch, epoch, counts.steps)
            losses.add(found["loss"], batch[2], counts)
            for name, value in found.items():
                progress.sums[name] = progress.sums.get(name, 0) + value
            counts.steps += 1
            save_if_due()
        losses.check(counts)
        check_finite(model, counts)
        means = {name: float(value) / counts.steps for name, value in group.summed(progress.sums).items()}
        line = {"epoch": epoch, "learning_rate": rate, **means}
        if looked_at(settings, epoch):
            clean, robust = validate(trainer, validation, device, save_if_due)
            line |= {"selection_clean": clean, "selection_robust": robust}
            if (robust, clean) > counts.best_score:
                progress.best, counts.best_epoch, counts.best_score = copied(model), epoch, (robust, clean)
        log.info("%s", json.dumps(line))
        counts.metrics.append(line)
        counts.epoch, counts.steps, progress.sums = epoch + 1, 0, {}
        save_if_due(True)
    return progress


def validate(
    trainer: Trainer, validation: Dataset, device: torch.device, between: Callable[[], None] = lambda: None
) -> tuple[float, float]:
    """Accuracy on the images that `best` is chosen on, clean and under attack, the same one at every epoch. `between`
    is called after every batch; the model is then as it was."""
    with looking():
        clean, held = held_on_selection(
            trainer.model,
            validation,
            trainer.threat_model,
            trainer.settings.selection,
            derived_seed(trainer.seed, "selection") % 2**32,
            device,
            between,
        )
    return clean.float().mean().item(), held.float().mean().item()


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
