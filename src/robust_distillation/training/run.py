"""One training from settings to files: checkpoints `best` and `last` and the training curves; for tuning the curves
only.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch

from robust_distillation.data.dataset import Dataset
from robust_distillation.data.views import Views
from robust_distillation.files import write_text
from robust_distillation.layout import Layout
from robust_distillation.methods import Method
from robust_distillation.models.checkpoint import build_model, save_checkpoint
from robust_distillation.models.precision import EXACT, TRAIN, configure_precision
from robust_distillation.randomness import derived_seed
from robust_distillation.resume import ResumableJob
from robust_distillation.settings import ThreatModel, Training
from robust_distillation.training.averaging import build_average
from robust_distillation.training.divergence import Diverged
from robust_distillation.training.loop import train
from robust_distillation.training.parallel import SYNCHRONISED, Group, synchronised
from robust_distillation.training.teacher import Teachers
from robust_distillation.training.trainer import Trainer, build_own, is_network

log = logging.getLogger(__name__)


def build_trainer(
    settings: dict[str, Any],
    training: Training,
    method: Method,
    threat: ThreatModel,
    data: Dataset,
    device: torch.device,
    teachers: Teachers = Teachers(),  # noqa: B008 (immutable)
    group: Group = Group(),  # noqa: B008 (immutable)
    precision: str = EXACT,
    compiled: bool = False,
) -> Trainer:
    """Builds the student, the method's own modules and the optimisers of one training, with freshly drawn weights.

    The method's own modules are those that it trains or updates besides the student: networks, copies of teachers,
    projection heads, memory banks.

    Args:
        settings: resolved settings of the training, of which these keys are used: `architecture` (`{"name": NAME,
            **arguments}`), `seed`, and, with several processes, `devices` (`{"count": N, "batch_norm": "synchronised"
            or "local"}`).
        training: section `training` of the experiment file: epochs, batch size, optimiser, schedule and inner attack.
        method: the distillation or training method with its settings.
        threat: norm (`linf` or `l2`) and radius `eps` of attacks, `eps` in the pixel range [0,1], such as 8/255.
        data: the training split: images uint8 [N,C,H,W] and labels int64 [N], as `data.dataset.load` returns them;
            labels, shape and classes are used.
        device: device to which all networks are moved.
        teachers: the teachers that the method calls, by role (name under which the method calls a teacher, such as
            `robust`), as `pipeline.teacher_source.open_teachers` returns them in `teachers`; empty for a method without
            a teacher.
        group: the processes of torch.distributed that share each batch, with `rank` and `size`; by default one process.
        precision: a value of `compute.precision`: `exact` (float32, eager, NCHW layout), `fp32`, `bf16-inner` (bfloat16
            for the inner maximisation) or `bf16`.
        compiled: True if torch.compile compiles the features of the networks; without effect for `exact`.

    Returns:
        The trainer, which updates the networks by one batch at a time, ready for the first epoch.

    Raises:
        UserError: the architecture or an optimiser option is not valid, or the method needs labels and some images have
            none.
    """
    seed, info = settings["seed"], data.info
    student = build_model(settings["architecture"], info.shape, len(info.classes), derived_seed(seed, "model"))
    own = build_own(method, data, student, seed, settings["architecture"], teachers.features, teachers.copies)
    average = build_average(student, training.averaging) if training.averaging else None
    trained = [student, *filter(is_network, own.values())]
    for network in (*trained, *([average.module] if average else [])):
        network.to(device)
        if group.size > 1 and settings["devices"]["batch_norm"] == SYNCHRONISED:
            synchronised(network)
        compile_it = compiled and network in trained
        configure_precision(network, precision, TRAIN, compiled=compile_it, recorded=group.size == 1)
    return Trainer(student, method, training, threat, seed, own.to(device), teachers.by_role, group, average)


def train_to_files(
    folder: Path,
    settings: dict[str, Any],
    trainer: Trainer,
    data: Dataset,
    validation: Dataset,
    scheme: Views,
    device: torch.device,
    description: dict[str, Any],
    work: ResumableJob | None = None,
) -> list[Path]:
    """Trains and writes best.safetensors, last.safetensors and metrics.jsonl (one JSON object an epoch).

    An object of metrics.jsonl has `epoch`, `learning_rate`, `loss`, the mean of each loss term by name, and, in epochs
    with a validation, `selection_clean`, `selection_robust`, `train_clean` and `train_robust` (accuracies in [0, 1]).

    Args:
        folder: folder of the files.
        settings: all settings that the training depends on, as JSON values, such as `architecture`, `training` and
            `seed`. They are stored in the metadata of the two checkpoints, with `averaged_weights`: the number of
            weights whose average the checkpoint holds; 0: it holds the student's weights.
        trainer: the networks, method and optimisers, as `build_trainer` returns them; changed in place.
        data: the training split: images uint8 [N,C,H,W] and labels int64 [N], as `data.dataset.load` returns them.
        validation: the images on which `best` is chosen, in the form of `data`.
        scheme: the numbered views of the training images (a view is what the augmentation makes of an image), such as
            `ViewScheme(padding=4, flips=True)` for all crops and flips; `pipeline.experiment_data.views_of` returns
            them.
        device: device of the networks.
        description: further metadata of the two checkpoints, for example `{"role": "student", "teacher": "wrn"}`. On a
            key that `settings` has too, `description` wins.
        work: the resumable job under which the state is saved (after every epoch, and every `work.every` seconds) and
            from whose saved state the training continues. None: nothing is saved.

    Returns:
        The three paths, in the order above. With several processes only the first one writes; the other processes
        return an empty list.

    Raises:
        Diverged: a loss or weight is not finite. No file is written.
        SystemExit: a signal asked `work` to stop. The state was saved, and no file is written.
    """
    info = data.info
    progress = train(trainer, data, validation, scheme, device, work)
    if trainer.group.rank:
        return []
    metadata = {
        **settings,
        "dataset": {**settings["dataset"], "shape": list(info.shape), "classes": list(info.classes)},
        "normalisation": None,  # the model takes images in [0,1] as they are
        **description,
    }
    files = list(Layout.training(folder))
    counts = progress.counts
    best = {"checkpoint": "best", "epoch": counts.best_epoch, "averaged_weights": counts.best_averaged}
    last = {"checkpoint": "last", "epoch": trainer.settings.epochs, "averaged_weights": trainer.averaged_weights}
    save_checkpoint(files[0], progress.best, metadata | best)
    save_checkpoint(files[1], trainer.evaluated.state_dict(), metadata | last)
    _write_lines(files[2], counts.metrics)
    return files


def tune_to_file(
    folder: Path,
    trainer: Trainer,
    data: Dataset,
    validation: Dataset,
    scheme: Views,
    device: torch.device,
    work: ResumableJob | None = None,
) -> list[Path]:
    """Trains one candidate (a combination of hyperparameters that is tried) and writes metrics.jsonl, but no
    checkpoint.

    The file has one JSON object an epoch: `epoch`, `learning_rate`, `loss`, the mean of each loss term by name, and, in
    epochs with a validation, `selection_clean`, `selection_robust`, `train_clean` and `train_robust` (accuracies in [0,
    1]). A training that diverges is a result, not an error: the last line is then `{"epoch": N, "diverged": true}`,
    where N is the epoch that failed.

    Args:
        folder: folder of the file.
        trainer: the networks, method and optimisers, as `build_trainer` returns them; changed in place.
        data: the training split: images uint8 [N,C,H,W] and labels int64 [N], as `data.dataset.load` returns them.
        validation: the images on which candidates are compared, in the form of `data`.
        scheme: the numbered views of the training images (a view is what the augmentation makes of an image), such as
            `ViewScheme(padding=4, flips=True)` for all crops and flips; `pipeline.experiment_data.views_of` returns
            them.
        device: device of the networks.
        work: the resumable job under which the state is saved (after every epoch, and every `work.every` seconds) and
            from whose saved state the training continues. None: nothing is saved.

    Returns:
        A list of one path, that of metrics.jsonl.

    Raises:
        SystemExit: a signal asked `work` to stop. The state was saved, and no file is written.
    """
    try:
        lines = train(trainer, data, validation, scheme, device, work).counts.metrics
    except Diverged as error:
        log.info("%s", error)
        lines = [*error.metrics, {"epoch": len(error.metrics) + 1, "diverged": True}]
    file = Layout.curves(folder)
    _write_lines(file, lines)
    return [file]


def _write_lines(file: Path, lines: list[dict[str, Any]]) -> None:
    write_text(file, "".join(json.dumps(line) + "\n" for line in lines))
