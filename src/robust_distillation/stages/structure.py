"""Measures how a model's logits correlate between the classes, and how far an attack moves its features."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robust_distillation.device import select_device
from robust_distillation.evaluation.structure import structure_of
from robust_distillation.files import write_json
from robust_distillation.models.precision import load_for_inference
from robust_distillation.pipeline.experiment_data import load_split

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import Structure


def run(step: Structure) -> None:
    """Writes the class correlations and feature distances of a model as JSON.

    `pipeline.run.run_step` calls this function for a job (one run) of the workflow step structure. It measures how the
    logits correlate between the classes, and how far PGD-20 moves the features, at the first evaluated checkpoint of
    the model. The file has `teacher`, `student`, `method`, `seed`, `checkpoint` and the keys that
    `evaluation.structure.structure_of` returns.

    Args:
        step: the job. `step.model` is the model with the paths of its checkpoints; `step.settings` has `images` (their
            number) and `seed`. The file to write is `step.outputs[0]`, for example
            results/digits/structure/teachers/wide.json.
    """
    experiment, settings = step.experiment, step.settings
    (checkpoint, weights), device = step.model.headline, select_device(experiment.compute)
    data = load_split(experiment, "test").first(settings["images"])
    x, labels = data.floats().to(device), data.labels.to(device)
    network = load_for_inference(weights, experiment.compute.precision, device)
    measured = structure_of(network, x, labels, experiment.threat_model, settings["seed"])
    write_json(step.outputs[0], {**step.model.keys, "checkpoint": checkpoint, **measured})
