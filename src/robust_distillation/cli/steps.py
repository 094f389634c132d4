"""Makes one command for each step: it parses the arguments and runs the job that they name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from robust_distillation.cli.shared import example, experiment_options
from robust_distillation.errors import UserError, unknown
from robust_distillation.pipeline.steps import STEPS

if TYPE_CHECKING:
    from robust_distillation.config import Experiment
    from robust_distillation.pipeline.step import Step


def command_of(kind: type[Step]) -> click.Command:
    """Makes the command of a step, with the step's arguments and options and its docstring as help."""

    def callback(path: str, overlay: str | None, **arguments: str | None) -> None:
        from robust_distillation.config import load
        from robust_distillation.pipeline.run import run_step

        words = [arguments.pop(argument.metavar.lower()) for argument in kind.arguments]
        options = {name: value for name, value in arguments.items() if value is not None}
        run_step(job_named(kind, load(path, overlay), words, options))

    callback.__doc__ = kind.__doc__
    command: Any = example(kind.example)(callback)
    command = experiment_options(command)
    for name, text in kind.options.items():
        command = click.option(f"--{name}", help=text)(command)
    for argument in reversed(kind.arguments):
        command = click.argument(argument.metavar.lower(), metavar=argument.metavar)(command)
    return click.command(kind.name)(command)


def job_named(kind: type[Step], experiment: Experiment, words: list[str], options: dict[str, str]) -> Step:
    """Looks up the job that a command's arguments name.

    Args:
        kind: the step.
        experiment: the experiment.
        words: values of the command's arguments, in order.
        options: option of the command to its value.

    Raises:
        UserError: if the experiment has no such job.
    """
    for name, value in options.items():
        kind.check_option(name, value)
    left = list(kind.jobs(experiment))
    for place, (argument, word) in enumerate(zip(kind.arguments, words, strict=True)):
        if not left and kind.not_asked:
            break
        allowed = {step.words[place] for step in left}
        if word not in allowed:
            problem = kind.refusal(experiment, word)
            raise UserError(problem or unknown(f"{argument.what} {experiment.name}", word, allowed))
        left = [step for step in left if step.words[place] == word]
    if not left:
        raise UserError(f"experiment {experiment.name}: {kind.not_asked}")
    values = {name: value for name, value in left[0].values.items() if name not in kind.options}
    return kind(experiment, **values, **options)


COMMANDS = tuple(map(command_of, STEPS))
