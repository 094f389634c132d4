"""Attacks on finished models, and the analyses: what they know, and what carries over to another task."""

from __future__ import annotations

import logging

import click

from robust_distillation.cli.shared import (
    check_structure,
    example,
    experiment_options,
    model_named,
    target_named,
    work_on,
)
from robust_distillation.errors import UserError
from robust_distillation.layout import Layout

SPLITS = ("train", "validation", "test")
log = logging.getLogger("robust-distillation")


@click.command()
@click.argument("model")
@click.option("--shard", metavar="I-of-N", help="Only this share of the blocks.")
@experiment_options
@example("attack wide/small/rslad/seed-0")
def attack(model: str, shard: str | None, path: str, overlay: str | None) -> None:
    """Attack the checkpoints of a student (TEACHER/STUDENT/METHOD/seed-N) or of a teacher (its name)."""
    from robust_distillation.config import load
    from robust_distillation.device import select_device
    from robust_distillation.evaluation import blocks
    from robust_distillation.evaluation.attack import attack_run
    from robust_distillation.evaluation.outcomes import write_outcomes
    from robust_distillation.files import sha256
    from robust_distillation.models.precision import loaded
    from robust_distillation.pipeline.experiment_data import split_of
    from robust_distillation.pipeline.record import Recorder
    from robust_distillation.pipeline.steps import attack_code
    from robust_distillation.pipeline.teacher_source import weights_of

    experiment = load(path, overlay)
    layout, evaluation = Layout(experiment.name), experiment.evaluation
    chosen = model_named(experiment, model)
    settings = experiment.attack_settings(list(chosen.checkpoints))
    recorder = Recorder("attack", settings, attack_code(experiment, chosen.architecture))
    todo = blocks.blocks(experiment.test_images, evaluation.block_size, evaluation.seed)
    output = layout.outcomes(chosen.folder)
    if shard is not None:
        output = layout.shard(chosen.folder, shard)
        number, of = _shard(shard)
        todo = blocks.shard(todo, number, of)
    device, files = select_device(experiment.compute), dict(chosen.checkpoints)
    surrogate = None
    if experiment.surrogate:
        files["surrogate"] = weights_of(experiment, experiment.surrogate)
        surrogate = loaded(files["surrogate"], experiment.compute.precision, device)
    inputs = {file: sha256(file) for file in (layout.data, *files.values())}
    with work_on(experiment, output, layout.record(output), recorder, inputs) as work:
        if work is None:
            return
        outcomes = attack_run(
            chosen.checkpoints, split_of(experiment, "test"), todo, evaluation.attacks, experiment.threat_model, device,
            surrogate, work, experiment.compute.precision, evaluation.search,
        )  # fmt: skip
        write_outcomes(output, outcomes.assign(**chosen.keys))
        recorder.write(layout.record(output), inputs, [output], work)


@click.command("merge-outcomes")
@click.argument("model")
@experiment_options
@example("merge-outcomes wide/small/rslad/seed-0")
def merge_outcomes(model: str, path: str, overlay: str | None) -> None:
    """Put the outcomes of a model's shards together."""
    from robust_distillation.config import load
    from robust_distillation.evaluation.outcomes import merge, write_outcomes
    from robust_distillation.files import sha256
    from robust_distillation.pipeline.record import Recorder
    from robust_distillation.pipeline.steps import merge_code

    experiment = load(path, overlay)
    layout = Layout(experiment.name)
    folder = model_named(experiment, model).folder
    shards = [layout.shard(folder, f"{i}-of-{experiment.shards}") for i in range(1, experiment.shards + 1)]
    recorder = Recorder("merge-outcomes", {"shards": experiment.shards}, merge_code())
    write_outcomes(layout.outcomes(folder), merge(shards))
    output = layout.outcomes(folder)
    recorder.write(layout.record(output), {file: sha256(file) for file in shards}, [output])


@click.command()
@click.argument("model")
@experiment_options
@example("structure wide/small/rslad/seed-0")
def structure(model: str, path: str, overlay: str | None) -> None:
    """Write down how a model's logits relate the classes, and how far an attack moves its features."""
    from robust_distillation.config import load
    from robust_distillation.device import select_device
    from robust_distillation.evaluation.structure import structure_of
    from robust_distillation.files import sha256, write_json
    from robust_distillation.models.precision import loaded
    from robust_distillation.pipeline.experiment_data import split_of
    from robust_distillation.pipeline.record import Recorder
    from robust_distillation.pipeline.steps import structure_code

    experiment = load(path, overlay)
    check_structure(experiment)
    layout, chosen = Layout(experiment.name), model_named(experiment, model)
    settings = experiment.structure_settings()
    recorder = Recorder("structure", settings, structure_code(experiment, chosen.architecture))
    (checkpoint, weights), device = chosen.headline, select_device(experiment.compute)
    data = split_of(experiment, "test").first(settings["images"])
    x, labels = data.floats().to(device), data.labels.to(device)
    network = loaded(weights, experiment.compute.precision, device)
    found = structure_of(network, x, labels, experiment.threat_model, settings["seed"])
    output = layout.structure(chosen.folder)
    write_json(output, {**chosen.keys, "checkpoint": checkpoint, **found})
    recorder.write(layout.record(output), {file: sha256(file) for file in (layout.data, weights)}, [output])


@click.command()
@click.argument("target")
@click.argument("model")
@experiment_options
@example("transfer parity wide/small/rslad/seed-0")
def transfer(target: str, model: str, path: str, overlay: str | None) -> None:
    """Train a linear head for another task on a model's frozen backbone, and attack both end to end."""
    from robust_distillation.config import load
    from robust_distillation.device import select_device
    from robust_distillation.evaluation import blocks
    from robust_distillation.evaluation.attack import attack_run
    from robust_distillation.evaluation.outcomes import write_outcomes
    from robust_distillation.evaluation.transfer import train_head
    from robust_distillation.files import sha256
    from robust_distillation.models.checkpoint import read_checkpoint, save_checkpoint
    from robust_distillation.models.precision import loaded
    from robust_distillation.pipeline.experiment_data import checked
    from robust_distillation.pipeline.record import Recorder
    from robust_distillation.pipeline.steps import transfer_code

    experiment = load(path, overlay)
    files = target_named(experiment, target)
    layout, chosen = Layout(experiment.name), model_named(experiment, model)
    settings, written = experiment.transfer_settings(target), layout.target_data(target)
    recorder = Recorder("transfer", settings, transfer_code(experiment, target, chosen.architecture))
    (checkpoint, weights), device = chosen.headline, select_device(experiment.compute)
    split = {name: checked(files.dataset.name, files.dataset.options, name, written) for name in SPLITS}
    backbone, metadata = loaded(weights, experiment.compute.precision, device), read_checkpoint(weights)[1]
    state, metrics = train_head(backbone, split["train"], split["validation"], files, chosen.keys["seed"], device)
    log.info("head for %s: %s", target, metrics[-1])
    info, output = split["test"].info, layout.transferred(target, chosen.folder)
    own = {"shape": list(info.shape), "classes": list(info.classes)}
    metadata |= {"dataset": {**settings["dataset"], **own}, "role": "transferred", "head": settings}
    save_checkpoint(output.with_suffix(".safetensors"), state, metadata)
    todo = blocks.blocks(settings["images"], settings["block_size"], settings["seed"])
    outputs, inputs = [output, output.with_suffix(".safetensors")], {file: sha256(file) for file in (written, weights)}
    with work_on(experiment, output, layout.record(output), recorder, inputs) as work:
        if work is None:
            return
        outcomes = attack_run(
            {checkpoint: outputs[1]}, split["test"], todo, files.attacks, experiment.threat_model, device,
            None, work, experiment.compute.precision,
        )  # fmt: skip
        write_outcomes(output, outcomes.assign(**chosen.keys))
        recorder.write(layout.record(output), inputs, outputs, work, head=metrics)


def _shard(text: str) -> tuple[int, int]:
    number, _, of = text.partition("-of-")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise UserError(f"--shard {text!r}: give it as I-of-N with I from 1 to N, e.g. 2-of-3")
    return int(number), int(of)


COMMANDS = (attack, merge_outcomes, structure, transfer)
