"""The training loop: epochs, validation, the choice of `best`, saved states."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from robust_distillation.data.dataset import Dataset
from robust_distillation.data.views import ViewScheme
from robust_distillation.models.precision import evaluation_precision
from robust_distillation.randomness import derived_seed
from robust_distillation.resume import STOPPED, ResumableJob
from robust_distillation.training.batches import batches
from robust_distillation.training.divergence import Losses, check_finite
from robust_distillation.training.schedule import is_validation_epoch
from robust_distillation.training.selection import evaluate_for_selection
from robust_distillation.training.state import Progress, packed, restored
from robust_distillation.training.trainer import Trainer

log = logging.getLogger(__name__)


def train(
    trainer: Trainer,
    data: Dataset,
    validation: Dataset,
    scheme: ViewScheme,
    device: torch.device,
    work: ResumableJob | None = None,
) -> Progress:
    """Trains for all epochs and chooses `best`. The student is left as it is after the last epoch.

    Args:
        trainer: the networks and optimisers.
        data: the training images.
        validation: the images on which `best` is chosen; the test images under the official protocol.
        scheme: the views of a training image.
        device: where the networks lie.
        work: where the state of the training is saved, after every epoch and in between when it is time; a saved state
            is continued. None: nothing is saved.

    Raises:
        Diverged: a loss or a weight is not finite. The saved state is from before.
    """
    settings, model, group, data = trainer.settings, trainer.student, trainer.group, data.to(device)
    group.check(len(data), settings.batch_size, settings.drop_last)
    saved = group.broadcast_object(work and work.load())
    progress = restored(trainer, saved) if saved else Progress()
    counts, losses = progress.counts, Losses()

    def save() -> None:
        losses.check(counts)
        check_finite(model, counts)
        sums = group.all_gather(progress.sums)
        if work:
            work.save(packed(trainer, progress, sums))

    def save_if_due(save_now: bool = False) -> None:
        stopping = bool(work) and work.stopping  # asked once: a signal may come at any moment
        save_now = save_now or stopping or (bool(work) and work.should_save())
        save_now, stopping = group.broadcast_object((save_now, stopping))
        if save_now:
            save()
        if stopping:  # the first process has ended in `save`
            raise SystemExit(STOPPED)

    for epoch in range(counts.epoch, settings.epochs + 1):
        rate = trainer.begin_epoch(epoch)
        for batch in batches(data, scheme, settings, trainer.seed, epoch, device, counts.steps, group):
            means = trainer.step(batch)
            losses.add(means["loss"], batch.ids, counts)
            for name, value in means.items():
                progress.sums[name] = progress.sums.get(name, 0) + value
            counts.steps += 1
            save_if_due()
        losses.check(counts)
        check_finite(model, counts)
        means = {name: float(value) / counts.steps for name, value in group.summed(progress.sums).items()}
        line = {"epoch": epoch, "learning_rate": rate, **means}
        if is_validation_epoch(settings, epoch):
            clean, robust = validate(trainer, validation, device, save_if_due)
            line |= {"selection_clean": clean, "selection_robust": robust}
            if (robust, clean) > counts.best_score:
                progress.best, counts.best_epoch, counts.best_score = copied(model), epoch, (robust, clean)
        log.info("%s", json.dumps(line))
        counts.metrics.append(line)
        trainer.end_epoch(epoch)
        counts.epoch, counts.steps, progress.sums = epoch + 1, 0, {}
        save_if_due(True)
    return progress


def validate(
    trainer: Trainer, validation: Dataset, device: torch.device, on_batch_end: Callable[[], None] = lambda: None
) -> tuple[float, float]:
    """Evaluates the student on the images that `best` is chosen on, by the same attack at every epoch.

    Args:
        trainer: the training; its student is left as it was.
        validation: the images.
        device: where the student lies.
        on_batch_end: called after every batch.

    Returns:
        Accuracy in [0,1] on clean images, and under attack.
    """
    with evaluation_precision():
        clean, robust_correct = evaluate_for_selection(
            trainer.student,
            validation,
            trainer.threat_model,
            trainer.settings.selection,
            derived_seed(trainer.seed, "selection") % 2**32,
            device,
            on_batch_end,
        )
    return clean.float().mean().item(), robust_correct.float().mean().item()


def copied(model: nn.Module) -> dict[str, Tensor]:
    """Returns a copy of the weights and buffers of a model."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
