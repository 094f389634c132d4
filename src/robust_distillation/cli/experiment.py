"""Offers the commands about a whole experiment, `plan`, `reproduce`, `check` and `cluster`, and the list `methods`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from robust_distillation.cli.shared import check_data, check_weights, example, experiment_options, fetch_data


@click.command()
@click.option("--tflops", type=click.FloatRange(min=0, min_open=True), help="What one GPU sustains; 10 if left out.")
@click.option("--calibrate", is_flag=True, help="First measure how fast this machine is, in about 20 s, and keep it.")
@experiment_options
@example("plan --experiment experiments/fashion_mnist.yaml")
def plan(tflops: float | None, calibrate: bool, path: str, overlay: str | None) -> None:
    """Print what an experiment will do and cost: runs, jobs, GPU-hours, disk, and time where this machine was measured.

    --tflops is the sustained speed of one GPU in 10^12 operations per second. --calibrate writes one file,
    robust-distillation/speed.json in $XDG_CACHE_HOME or ~/.cache; else nothing is written.

    --experiment names the YAML file of the experiment (params.yaml by default), and --overlay a YAML file whose values
    replace those in it.
    """
    from robust_distillation.config import load
    from robust_distillation.planning.jobs import jobs_of
    from robust_distillation.planning.plan import TFLOPS, describe
    from robust_distillation.planning.speed import Speed

    experiment = load(path, overlay)
    speed = Speed(experiment)
    if calibrate:
        speed.calibrate(jobs_of(experiment))
    click.echo(describe(experiment, tflops or TFLOPS, speed))


@click.command()
@experiment_options
@example("reproduce --experiment experiments/fashion_mnist.yaml")
def reproduce(path: str, overlay: str | None) -> None:
    """Run an experiment through Snakemake, from nothing to the table. Jobs that are done already are not repeated.

    Says where each teacher comes from, and fetches missing data. Ends by printing the table and the places of the
    results. Exit code 0 if everything is made, else that of Snakemake.

    --experiment names the YAML file of the experiment (params.yaml by default), and --overlay a YAML file whose values
    replace those in it.
    """
    from robust_distillation.config import load
    from robust_distillation.pipeline.reproduce import run_workflow

    experiment = load(path, overlay)
    click.echo(f"{experiment.name}: teachers: {experiment.teachers_text}")
    check_data(experiment)
    check_weights(experiment)
    fetch_data(experiment)  # here, where the progress is visible
    sys.exit(run_workflow(experiment, path, overlay))


@click.command()
@experiment_options
@example("check --experiment params.yaml")
def check(path: str, overlay: str | None) -> None:
    """Check an experiment file, and that its data and published weights are here or may be fetched. Writes nothing.

    Prints the experiment's name and the number of students to train. Exit code 2, with a message, if something is
    wrong.

    --experiment names the YAML file of the experiment (params.yaml by default), and --overlay a YAML file whose values
    replace those in it.
    """
    from robust_distillation.config import load

    experiment = load(path, overlay)
    check_data(experiment)
    check_weights(experiment)
    click.echo(f"{path}: experiment {experiment.name}, students to train: {len(experiment.runs)}")


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--partition", help="Slurm's partition; its default if left out.")
@click.option("--account", help="Slurm's account.")
@click.option("--gpus/--no-gpus", default=False, help="Ask for one GPU for each job that computes.")
@click.option("--tflops", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True,
              help="What one job sustains.")  # fmt: skip
@click.option("--group", type=click.IntRange(min=1), default=1, show_default=True,
              help="Attacks and analyses that share a Slurm job.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(min=1), default=50, show_default=True, help="In Slurm at once, at most.")
@experiment_options
@example("cluster profiles/lab --partition gpu --gpus --experiment experiments/rslad_cifar10.yaml")
def cluster(folder: Path, path: str, overlay: str | None, **options: Any) -> None:
    """Write a Snakemake profile for Slurm into FOLDER, with time and memory for each rule from the plan.

    --tflops is the sustained speed of one job in 10^12 operations per second; the time limits follow from it. Prints
    the path of the profile and the command that runs the experiment with it.

    --experiment names the YAML file of the experiment (params.yaml by default), and --overlay a YAML file whose values
    replace those in it.
    """
    from robust_distillation.config import load
    from robust_distillation.planning.cluster import Cluster, write_profile

    experiment = load(path, overlay)
    file = write_profile(experiment, Cluster(**options), folder)
    chosen = shlex.join([f"experiment={path}"] + ([f"overlay={overlay}"] if overlay else []))
    click.echo(f"{file}\nsnakemake --profile {shlex.quote(str(folder))} --workflow-profile none --config {chosen}")


class Counts(click.ParamType):
    """Whole numbers that are separated by commas, such as `3,5,10`."""

    name = "numbers"

    def __init__(self, least: int):
        """Creates the type of an option.

        Args:
            least: the smallest number that is allowed.
        """
        self.least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """Returns the numbers of a text; click calls it.

        Args:
            value: the text, or the numbers.
            param: the option, for the message.
            ctx: the context, for the message.

        Raises:
            click.BadParameter: if a part is no whole number, or is too small.
        """
        try:
            found = value if isinstance(value, list) else [int(part) for part in value.split(",")]
        except ValueError:
            self.fail(f"{value!r} is not whole numbers separated by commas, such as 3,5,10", param, ctx)
        if min(found) < self.least:
            self.fail(f"{min(found)} is less than {self.least}", param, ctx)
        return found


@click.command()
@click.option("--seeds", type=Counts(2), default="3,5,10,20", show_default=True, help="Numbers of seeds.")
@click.option("--images", type=Counts(1), help="Numbers of test images; if left out, that of the experiment.")
@click.option("--measured", type=click.Path(exists=True, dir_okay=False),
              help="Another experiment, whose results give the spread.")  # fmt: skip
@experiment_options
@example("power --seeds 3,5,10 --images 300,1000")
def power(seeds: list[int], images: list[int] | None, measured: str | None, path: str, overlay: str | None) -> None:
    """Print the smallest difference that each claim decides with a probability of 80 %, for numbers of seeds and
    images.

    The spread over seeds and images is taken from the results of the experiment. Before it was run, --measured names
    another one, whose methods' median spread is taken.

    --experiment names the YAML file of the experiment (params.yaml by default), and --overlay a YAML file whose values
    replace those in it.
    """
    from robust_distillation.config import load
    from robust_distillation.reporting.power import describe

    experiment = load(path, overlay)
    other = load(measured) if measured else None
    click.echo(describe(experiment, other, seeds, images or [experiment.test_images]))


@click.command()
@example("methods > docs/methods.md")
def methods() -> None:
    """Print all methods as Markdown: formulas, what the teachers see, cost of a step, and what is not known.

    Also those that other packages add. Each method takes one step on a few random images.
    """
    from robust_distillation.planning.method_list import page

    click.echo(page(), nl=False)


COMMANDS = (plan, reproduce, check, cluster, power, methods)
