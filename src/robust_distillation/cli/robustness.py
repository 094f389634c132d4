"""Accuracy against eps."""

from __future__ import annotations

import click

from robust_distillation.cli.shared import example, experiment_options, model_named
from robust_distillation.errors import UserError
from robust_distillation.layout import Layout


@click.command()
@click.argument("model")
@experiment_options
@example("robustness wide/small/rslad/seed-0")
def robustness(model: str, path: str, overlay: str | None) -> None:
    """Measure a model's accuracy under attacks of growing eps, and keep some attacked images."""
    import numpy as np

    from robust_distillation.config import load
    from robust_distillation.device import select_device
    from robust_distillation.evaluation.robustness import GALLERY_ATTACK, gallery, robustness_curve
    from robust_distillation.files import replacing, sha256, write_json
    from robust_distillation.models.precision import loaded
    from robust_distillation.pipeline.experiment_data import split_of
    from robust_distillation.pipeline.record import Recorder
    from robust_distillation.pipeline.steps import robustness_code

    experiment = load(path, overlay)
    if experiment.file.robustness is None:
        raise UserError(
            f"experiment {experiment.name}: does not ask for this: add `robustness: {{eps: [...]}}` to its file"
        )
    layout, chosen = Layout(experiment.name), model_named(experiment, model)
    settings, threat = experiment.robustness_settings(), experiment.threat_model
    recorder = Recorder("robustness", settings, robustness_code(experiment, chosen.architecture))
    (checkpoint, weights), device = chosen.headline, select_device(experiment.compute)
    data = split_of(experiment, "test").first(settings["images"])
    x, labels = data.floats().to(device), data.labels.to(device)
    network = loaded(weights, experiment.compute.precision, device)
    found = robustness_curve(network, x, labels, threat.norm, settings["eps"], settings["seed"])
    shown = gallery(network, x[: settings["gallery"]], labels[: settings["gallery"]], threat, settings["seed"])
    output = layout.robustness(chosen.folder)
    images = output.with_suffix(".npz")
    with replacing(images) as temporary:
        np.savez_compressed(temporary, **shown)
    about = {"attack": GALLERY_ATTACK, "eps": threat.eps, "images": len(shown["x"])}
    write_json(output, {**chosen.keys, "checkpoint": checkpoint, **found, "gallery": about})
    recorder.write(layout.record(output), {file: sha256(file) for file in (layout.data, weights)}, [output, images])


COMMANDS = (robustness,)
