"""Measures a model's accuracy against eps, and keeps some attacked images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from robust_distillation.device import select_device
from robust_distillation.evaluation.robustness import GALLERY_ATTACK, gallery, robustness_curve
from robust_distillation.files import atomic_write, write_json
from robust_distillation.models.precision import load_for_inference
from robust_distillation.pipeline.experiment_data import load_split

if TYPE_CHECKING:
    from robust_distillation.pipeline.steps import Robustness


def run(step: Robustness) -> None:
    """Writes a model's accuracy under APGD-CE for each eps (JSON), and some images attacked with PGD-20 (.npz).

    `pipeline.run.run_step` calls this function for a job (one run) of the workflow step robustness. The first evaluated
    checkpoint of the model is used. The JSON file has `teacher`, `student`, `method`, `seed`, `checkpoint`, `attack`,
    `norm`, `images` (their number), `eps` (0 first), `accuracy` (percent at each eps) and `gallery` (`attack`, `eps`
    and number of the attacked images). The .npz file has the arrays `x`, `adversarial`, `labels`, `prediction` and
    `adversarial_prediction`, as `evaluation.robustness.gallery` returns them.

    Args:
        step: the job. `step.model` is the model with the paths of its checkpoints; `step.settings` has `eps` (list of
            distances), `images` and `gallery` (numbers of images) and `seed`. The files to write are `step.outputs`,
            for example results/digits/robustness/teachers/wide.json and wide.npz.
    """
    experiment, settings, threat = step.experiment, step.settings, step.experiment.threat_model
    (checkpoint, weights), device = step.model.headline, select_device(experiment.compute)
    data = load_split(experiment, "test").first(settings["images"])
    x, labels = data.floats().to(device), data.labels.to(device)
    network = load_for_inference(weights, experiment.compute.precision, device)
    curve = robustness_curve(network, x, labels, threat.norm, settings["eps"], settings["seed"])
    examples = gallery(network, x[: settings["gallery"]], labels[: settings["gallery"]], threat, settings["seed"])
    output, images = step.outputs
    with atomic_write(images) as temporary:
        np.savez_compressed(temporary, **examples)
    description = {"attack": GALLERY_ATTACK, "eps": threat.eps, "images": len(examples["x"])}
    write_json(output, {**step.model.keys, "checkpoint": checkpoint, **curve, "gallery": description})
