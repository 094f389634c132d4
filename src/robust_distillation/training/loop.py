"""The training loop: epochs, validation, the choice of `best`, saved states."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robust_distillation.data.dataset import Dataset
from robust_distillation.data.views import Views
from robust_distillation.models.precision import evaluation_precision
from robust_distillation.randomness import derived_seed
from robust_distillation.resume import STOPPED, ResumableJob
from robust_distillation.training.averaging import reestimate_statistics
from robust_distillation.training.batches import batches
from robust_distillation.training.divergence import Losses, check_finite
from robust_distillation.training.schedule import CURVE_IMAGES, is_validation_epoch
from robust_distillation.training.selection import evaluate_for_selection, metric_score
from robust_distillation.training.state import Progress, packed, restored
from robust_distillation.training.tables import FOLDER, TableFiles
from robust_distillation.training.trainer import Trainer

log = logging.getLogger(__name__)


def train(
    trainer: Trainer,
    data: Dataset,
    validation: Dataset,
    scheme: Views,
    device: torch.device,
    work: ResumableJob | None = None,
) -> Progress:
    """Trains the student for all epochs and keeps a copy of the weights with the highest validation accuracy (`best`).

    With `settings.averaging`, the average of the student's weights is evaluated and kept, from the first weights on
    that are added to it.

    `best` is the epoch with the highest accuracy on `validation` under the attack of `training.selection` (`apgd`,
    `pgd10` or `pgd_trades`), or, if `training.selection.by` names a metric such as `worst_class.apgd`, the best value
    of this metric. Ties are decided by clean accuracy, then by the earlier epoch. Afterwards `trainer.student` has the
    weights of the last epoch and is in train mode. Each epoch adds one dict to `counts.metrics` and logs it as JSON:
    `epoch`, `learning_rate`, `loss`, the mean of each loss term by name, and, in epochs with a validation,
    `selection_clean` and `selection_robust` (accuracies in [0, 1]), `selection_score` if `settings.selection` names a
    metric, `train_clean` and `train_robust` (the same on the first 500 training images, not augmented) and, with
    averaging, `averaged_weights` (number of weights in the average; 0: the student was evaluated).

    Args:
        trainer: the networks, optimisers and settings; changed in place.
        data: the training split: images uint8 [N,C,H,W] and labels int64 [N], as `data.dataset.load` returns them. It
            is moved to `device`.
        validation: the images on which `best` is chosen, in the form of `data`. Under the official protocol (the
            settings of a method's released code) they are the test images.
        scheme: the numbered views of the training images (a view is what the augmentation makes of an image), such as
            `ViewScheme(padding=4, flips=True)` for all crops and flips; `pipeline.experiment_data.views_of` returns
            them.
        device: device of the networks.
        work: the job under which the state is saved: after every epoch, and every `work.every` seconds within an epoch.
            If it holds a saved state, the training continues from there. None: nothing is saved. With several processes
            only the first one passes it.

    Returns:
        The progress at the end: `counts` (with the training curves `metrics`, and `best_epoch` and `best_score`) and
        `best` (state dict of the best epoch).

    Raises:
        Diverged: a loss, weight or running statistic is not finite. The state after the failed optimisation step is not
            saved.
        UserError: a batch has fewer images than there are processes.
        SystemExit: a signal asked `work` to stop, and the state was saved. The exit code is STOPPED.
    """
    settings, group, data = trainer.settings, trainer.group, data.to(device)
    group.check(data.own, settings.batch_size, settings.drop_last)
    saved, folder = group.broadcast_object((work and work.load(), work and work.state_folder / FOLDER))
    progress = restored(trainer, saved) if saved else Progress()
    counts, losses = progress.counts, Losses()
    if folder:
        tables = TableFiles(trainer.own, folder)
        tables.load(remove=group.rank == 0)
    if work:
        work.scratch = folder

    def save() -> None:
        losses.check(counts)
        check_finite(trainer.student, counts)
        sums = group.all_gather(progress.sums)
        if work:
            tables.write()
            work.save(packed(trainer, progress, sums))
            tables.remove_old()

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
        check_finite(trainer.student, counts)
        means = {name: float(value) / counts.steps for name, value in group.summed(progress.sums).items()}
        line = {"epoch": epoch, "learning_rate": rate, **means}
        if is_validation_epoch(settings, epoch):
            if trainer.averaged_weights and settings.averaging.batch_norm == "reestimate":
                with evaluation_precision():
                    views = batches(data, scheme, settings, trainer.seed, epoch, device, 0, group)
                    reestimate_statistics(trainer.evaluated, views)
            found = evaluate(trainer, validation, device, save_if_due)
            line |= {"selection_clean": found.clean, "selection_robust": found.robust}
            seen = evaluate(trainer, data.first(CURVE_IMAGES), device, save_if_due)
            line |= {"train_clean": seen.clean, "train_robust": seen.robust}
            if settings.selection.metric:
                line["selection_score"] = found.score
            if settings.averaging:
                line["averaged_weights"] = trainer.averaged_weights
            if not counts.best_epoch or (found.score, found.clean) > counts.best_score:
                progress.best, counts.best_averaged = copied(trainer.evaluated), trainer.averaged_weights
                counts.best_epoch, counts.best_score = epoch, (found.score, found.clean)
        log.info("%s", json.dumps(line))
        counts.metrics.append(line)
        trainer.end_epoch(epoch)
        counts.epoch, counts.steps, progress.sums = epoch + 1, 0, {}
        save_if_due(True)
    return progress


class Evaluation(NamedTuple):
    """Accuracies of one validation, as `training.loop.evaluate` returns them, and the score by which `best` is chosen.

    Attributes:
        clean: accuracy on clean images, in [0, 1].
        robust: accuracy under the attack of `training.selection` (`apgd`, `pgd10` or `pgd_trades`), in [0, 1]. With
            `apgd` an image counts only if the clean image is classified correctly too; with the other two attacks only
            the attacked image counts.
        score: number that is highest for `best`: `robust`, or the value of the metric of `training.selection`, negated
            if lower values are better; minus infinity if that metric is not defined.
    """

    clean: float
    robust: float
    score: float


def evaluate(
    trainer: Trainer, images: Dataset, device: torch.device, on_batch_end: Callable[[], None] = lambda: None
) -> Evaluation:
    """Evaluates the student, or the average of the student's weights once weights were added to it, as for the choice
    of `best`.

    The attack is the attack of `training.selection` (`apgd`, `pgd10` or `pgd_trades`). Attack and random start are the
    same at every epoch. The computation is in float32 and without torch.compile, whatever the precision of the training
    is.

    Args:
        trainer: the training, with student, average, settings, threat model and seed; weights, buffers and mode of all
            networks are unchanged afterwards.
        images: the images, for example the validation split: images uint8 [N,C,H,W] and labels int64 [N], as
            `data.dataset.load` returns them. They are not augmented.
        device: device of the student.
        on_batch_end: called without arguments after every batch of 500 images, for example to save the training.

    Returns:
        An `Evaluation`: `clean` and `robust` (accuracies in [0, 1]) and `score`, by which `best` is chosen.
    """
    selection = trainer.settings.selection
    with evaluation_precision():
        clean, robust_correct = evaluate_for_selection(
            trainer.evaluated,
            images,
            trainer.threat_model,
            selection,
            derived_seed(trainer.seed, "selection") % 2**32,
            device,
            on_batch_end,
        )
    robust = robust_correct.float().mean().item()
    score = metric_score(selection, images.labels, clean, robust_correct) if selection.metric else robust
    return Evaluation(clean.float().mean().item(), robust, score)


def copied(model: nn.Module) -> dict[str, Tensor]:
    """Returns a copy of the state dict of `model`: its weights and buffers by name, detached, on the same device."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
