"""Offers the commands `export model` and `export crate`: write results for use without this project."""

from __future__ import annotations

from pathlib import Path

import click

from robust_distillation.cli.shared import example, experiment_options, model_named
from robust_distillation.errors import UserError


@click.group()
@example("export crate --to digits.zip")
def export() -> None:
    """Write results in formats that can be read without this project."""


@export.command("model")
@click.argument("run")
@click.option("--to", "target", metavar="FOLDER", required=True, help="What to write; new, or empty.")
@click.option("--checkpoint", metavar="NAME", help="best or last; the headline's if left out.")
@experiment_options
@example("export model wide/small/rslad/seed-0 --to rslad-digits")
def model(run: str, target: str, checkpoint: str | None, path: str, overlay: str | None) -> None:
    """Write a student or a teacher as safetensors and ONNX, with its source in plain torch and a model card.

    RUN is TEACHER/STUDENT/METHOD/seed-N or, for a teacher, its name. FOLDER gets model.safetensors, model.onnx,
    architecture.py, config.json and README.md, or nothing after an error; it must be new or empty. --checkpoint is
    best, last or, for an imported teacher, imported; by default that of the headline, the first that the experiment
    evaluates.

    --experiment names the YAML file of the experiment (params.yaml by default), and --overlay a YAML file whose values
    replace those in it.
    """
    from robust_distillation.config import load
    from robust_distillation.errors import unknown

    experiment = load(path, overlay)
    chosen = model_named(experiment, run)
    checkpoint = checkpoint or chosen.headline[0]
    if checkpoint not in chosen.checkpoints:
        raise UserError(f"--checkpoint: {unknown(f'evaluated checkpoint of {run}', checkpoint, chosen.checkpoints)}")
    from robust_distillation.export.model import export_model

    agreement = export_model(experiment, run, chosen, checkpoint, Path(target))
    click.echo(
        f"{target}: model.safetensors, architecture.py, config.json, README.md, model.onnx; ONNX Runtime gives the "
        f"same {agreement.images} predictions, its logits differ by {agreement.difference:.2g} at most"
    )


@export.command()
@click.option("--to", "target", metavar="FOLDER_OR_ZIP", required=True, help="What to write; it must not be there yet.")
@click.option("--author", metavar="NAME", help="Who answers for it; git's user.name if left out.")
@click.option("--license", "licence", metavar="URL", help="How it may be used, as https://spdx.org/licenses/CC-BY-4.0.")
@experiment_options
@example("export crate --to digits.zip")
def crate(target: str, author: str | None, licence: str | None, path: str, overlay: str | None) -> None:
    """Write a finished experiment as a research object: a Workflow Run RO-Crate with files, hashes and provenance.

    The crate is an archive if --to ends in .zip, else a folder; it must not exist. It names --author, by default git's
    user.name, and the URL of a licence if there is --license. The cached arrays of the teachers are left out.

    --experiment names the YAML file of the experiment (params.yaml by default), and --overlay a YAML file whose values
    replace those in it.
    """
    from robust_distillation.config import load
    from robust_distillation.export.crate import collect_content, write_crate

    experiment = load(path, overlay)
    content = collect_content(experiment, [path, *([overlay] if overlay else [])])
    click.echo(f"{target}: {len(content.files)} files, {content.bytes / 1e6:.1f} MB before they are packed")
    write_crate(experiment, content, Path(target), author or _git_user(), licence)


def _git_user() -> str:
    from robust_distillation.pipeline.record import git

    name = (git("config", "user.name") or "").strip()
    if not name:
        raise UserError("a crate names its author, and git knows no user.name here: give --author NAME")
    return name


COMMANDS = (export,)
