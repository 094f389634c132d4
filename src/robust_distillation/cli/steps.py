"""Makes one command for each step (a kind of job of an experiment), which runs the job that its arguments name."""

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
    """Makes the command of a step, a kind of job such as training one student, from the declaration in its class.

    The command has the arguments and options that the class declares in `arguments` and `options`, and --experiment and
    --overlay. The docstring of the class and its example are the help. Calling the command runs the job that its
    arguments name and writes the outputs.

    Args:
        kind: class of the step, a subclass of `pipeline.step.Step`, such as `pipeline.steps.TrainStudent`.

    Returns:
        A click command, named `kind.name`, for example `train-student`.
    """

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
    """Finds one job, such as the training of one student, by the arguments of its command. Runs nothing.

    Args:
        kind: class of the step (the kind of job), a subclass of `pipeline.step.Step`, such as
            `pipeline.steps.TrainStudent`.
        experiment: the parsed experiment file with all defaults filled in, as `config.load("params.yaml")` returns it.
        words: values of the command's arguments, in order, such as `["wide/small/rslad/seed-0"]`.
        options: name to value of the command's options that were used, without --experiment and --overlay. Example:
            `{"shard": "2-of-3"}`.

    Returns:
        The job, an instance of `kind`. `job.inputs` and `job.outputs` are the paths of its files.

    Raises:
        UserError: if the experiment has no such job, or if the step does not allow the value of an option. The message
            names the allowed values or the reason.
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
