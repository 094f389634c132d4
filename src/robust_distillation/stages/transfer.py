"""Trains a linear head for another dataset on a model's frozen backbone, and attacks the two together."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from robust_distillation.data.info import SPLITS
from robust_distillation.device import select_device
from robust_distillation.evaluation import blocks
from robust_distillation.evaluation.attack import attack_run
from robust_distillation.evaluation.outcomes import write_outcomes
from robust_distillation.evaluation.transfer import train_head
from robust_distillation.models.checkpoint import read_checkpoint, save_checkpoint
from robust_distillation.models.precision import load_for_inference
from robust_distillation.pipeline.experiment_data import load_checked

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import Transfer
    from robust_distillation.resume import ResumableJob

log = logging.getLogger("robust-distillation")


def run(step: Transfer, work: ResumableJob) -> dict[str, Any]:
    """Trains a linear head for another dataset on a model's frozen backbone, and attacks the network with this head.

    `pipeline.run.run_step` calls this function for a job (one run) of the workflow step transfer. It uses the first
    evaluated checkpoint of the model. It writes the outcomes on the target's test images (Parquet, one row per image
    with a boolean column per attack) and the checkpoint with the new head, for example
    results/digits/transfer/parity/teachers/wide.parquet and wide.safetensors.

    Args:
        step: the job. `step.model` is the model with the paths of its checkpoints, and `step.values["target"]` the
            target, a key under `transfer` in the experiment file, for example `parity`.
        work: the resumable job, entered as a context manager. It saves the attacks, from which a killed job continues;
            the head is trained again.

    Returns:
        `{"head": [...]}` for the record, the JSON file beside the outputs (inputs, settings, code hash and hashes of
        the outputs): for each epoch of the head `epoch`, `learning_rate`, `loss`, `training_clean` and
        `validation_clean` (accuracies in [0, 1]).

    Raises:
        UserError: if the target's images changed since they were described, or if a file is missing or broken.
        FloatingPointError: if the loss of the head is not finite.
    """
    experiment, settings, keys = step.experiment, step.settings, step.model.keys
    (written, weights), (output, head) = step.inputs, step.outputs
    files, checkpoint, device = (
        experiment.file.transfer[step.values["target"]],
        step.model.headline[0],
        select_device(experiment.compute),
    )
    split = {name: load_checked(files.dataset.name, files.dataset.options, name, written) for name in SPLITS}
    backbone, metadata = load_for_inference(weights, experiment.compute.precision, device), read_checkpoint(weights)[1]
    state, metrics = train_head(backbone, split["train"], split["validation"], files, keys["seed"], device)
    log.info("head for %s: %s", step.values["target"], metrics[-1])
    info = split["test"].info
    own = {"shape": list(info.shape), "classes": list(info.classes)}
    described = {key: value for key, value in settings.items() if key != "model"}
    metadata |= {"dataset": {**settings["dataset"], **own}, "role": "transferred", "head": described}
    save_checkpoint(head, state, metadata)
    todo = blocks.blocks(settings["images"], settings["block_size"], settings["seed"])
    outcomes = attack_run(
        {checkpoint: head}, split["test"], todo, files.attacks, experiment.threat_model, device,
        None, work, experiment.compute.precision,
    )  # fmt: skip
    write_outcomes(output, outcomes.assign(**keys))
    return {"head": metrics}
