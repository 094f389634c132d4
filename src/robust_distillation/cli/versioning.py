"""Offers the command `version`: write the DVC stage of an experiment."""

from __future__ import annotations

import click

from robust_distillation.cli.shared import example, experiment_options


@click.command()
@experiment_options
@example("version --experiment experiments/fashion_mnist.yaml")
def version(path: str, overlay: str | None) -> None:
    """Add an experiment to dvc.yaml, or bring its stage up to date, so that DVC versions what it makes.

    Writes dvc.yaml in the current folder. Prints the name of the stage. Runs nothing.

    --experiment names the YAML file of the experiment (params.yaml by default), and --overlay a YAML file whose values
    replace those in it.
    """
    from robust_distillation.config import load
    from robust_distillation.pipeline.versioning import FILE, write_stage

    name = write_stage(load(path, overlay), path, overlay)
    click.echo(f"{FILE}: stage {name}. Run and version it: dvc repro {name}")


COMMANDS = (version,)
