"""What came out, handed to others."""

from __future__ import annotations

from pathlib import Path

import click

from robust_distillation.cli.shared import example, experiment_options
from robust_distillation.errors import UserError


@click.group()
@example("export crate --to digits.zip")
def export() -> None:
    """Write what came out in forms that others read without this project."""


@export.command()
@click.option("--to", "target", metavar="FOLDER_OR_ZIP", required=True, help="What to write; it must not be there yet.")
@click.option("--author", metavar="NAME", help="Who answers for it; git's user.name if left out.")
@click.option("--license", "licence", metavar="URL", help="How it may be used, as https://spdx.org/licenses/CC-BY-4.0.")
@experiment_options
@example("export crate --to digits.zip")
def crate(target: str, author: str | None, licence: str | None, path: str, overlay: str | None) -> None:
    """Write a finished experiment as a research object: a Workflow Run RO-Crate with files, hashes and provenance."""
    from robust_distillation.config import load
    from robust_distillation.export.crate import content_of, write_crate

    experiment = load(path, overlay)
    content = content_of(experiment, [path, *([overlay] if overlay else [])])
    click.echo(f"{target}: {len(content.files)} files, {content.bytes / 1e6:.1f} MB before they are packed")
    write_crate(experiment, content, Path(target), author or _git_user(), licence)


def _git_user() -> str:
    import subprocess

    found = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True)
    if not found.stdout.strip():
        raise UserError("a crate names its author, and git knows no user.name here: give --author NAME")
    return found.stdout.strip()


COMMANDS = (export,)
