"""Attacks a model's checkpoints and writes the outcome for each image: correct or not under each attack."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.device import select_device
from robust_distillation.evaluation import blocks
from robust_distillation.evaluation.attack import attack_run
from robust_distillation.evaluation.outcomes import write_outcomes
from robust_distillation.models.precision import load_for_inference
from robust_distillation.pipeline.experiment_data import load_split

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import Attack
    from robust_distillation.resume import ResumableJob


def run(step: Attack, work: ResumableJob) -> None:
    """Attacks the checkpoints of one model on the test images and writes the outcomes (Parquet).

    `pipeline.run.run_step` calls this function for a job (one run) of the workflow step attack. The outcomes have one
    row per image and checkpoint, with a boolean column per attack: whether the clean and the adversarial image are both
    classified correctly. The columns `teacher`, `student`, `method` and `seed` name the model. Images are attacked in
    blocks: images that are attacked together as one batch, with a seed for each block. The attacks and the number of
    images are those of the section `evaluation` of the experiment file.

    Args:
        step: the job. `step.experiment` is the parsed experiment file and `step.model` the model with the paths of its
            checkpoints. If several jobs share the blocks, `step.values["shard"]` is this job's part, for example
            `2-of-3`, and only its blocks are attacked. The file to write is `step.outputs[0]`, for example
            results/digits/outcomes/students/wide/small/rslad/seed-0.parquet.
        work: the resumable job, entered as a context manager by `pipeline.run`: progress is saved there, and a killed
            job continues from it.
    """
    experiment, model = step.experiment, step.model
    evaluation = experiment.evaluation
    todo = blocks.blocks(experiment.test_images, evaluation.block_size, evaluation.seed)
    if "shard" in step.values:
        todo = blocks.shard(todo, *map(int, step.values["shard"].split("-of-")))
    device, surrogate = select_device(experiment.compute), None
    if experiment.surrogate:
        weights = experiment.teacher_weights(experiment.surrogate)
        surrogate = load_for_inference(weights, experiment.compute.precision, device)
    outcomes = attack_run(
        model.checkpoints, load_split(experiment, "test"), todo, evaluation.attacks, experiment.threat_model, device,
        surrogate, work, experiment.compute.precision, evaluation.search, experiment.model_augmentation,
    )  # fmt: skip
    write_outcomes(step.outputs[0], outcomes.assign(**model.keys))
