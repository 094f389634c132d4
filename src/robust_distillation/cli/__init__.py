"""Offers the commands: one for each step, and those about an experiment as a whole.

A command parses its arguments and calls one function. Heavy imports lie inside, so that `--help` is instant and each
job imports only what it uses.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import click

from robust_distillation.cli import auditing, experiment, exporting, steps, versioning
from robust_distillation.errors import UserError, system_fault

__all__ = ["main"]


class Group(click.Group):
    """Group of commands that turns errors into messages.

    A UserError becomes one message and exit code 2. A fault of the machine, such as a full disk, becomes one message
    and exit code 1. Any other error keeps its traceback.
    """

    def invoke(self, context: click.Context) -> Any:
        """Runs the command that the command line names, and turns errors into messages.

        Args:
            context: click's context with the parsed command line.

        Returns:
            The result of the command.

        Raises:
            click.exceptions.Exit: after a UserError with code 2, and after a fault of the machine (full disk, missing
                permission, no memory) with code 1. The message is then printed on stderr.
        """
        try:
            return super().invoke(context)
        except UserError as error:
            click.echo(f"Error: {error}", err=True)
            context.exit(2)
        except (OSError, MemoryError, RuntimeError) as error:
            message = system_fault(error)
            if message is None:
                raise
            click.echo(f"Error: {message}", err=True)
            context.exit(1)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="robust-distillation")
def main() -> None:
    """Distil adversarial robustness from large teachers into small students, and evaluate the students.

    `make reproduce` runs a whole experiment. Each command is one of its steps or is about the experiment as a whole.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    logging.getLogger("auto-attack").setLevel(logging.WARNING)


for module in (experiment, steps, auditing, exporting, versioning):
    for command in module.COMMANDS:
        main.add_command(command)
