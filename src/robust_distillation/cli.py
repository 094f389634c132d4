"""The commands: one per step. They read the experiment, call the step with resolved values, and write the record.

Heavy imports lie inside the commands, so that `--help` is instant and each job imports only what it uses.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robust_distillation.errors import UserError
from robust_distillation.layout import Layout

if TYPE_CHECKING:
    from robust_distillation.config import Experiment, Run

log = logging.getLogger("robust-distillation")


class Group(click.Group):
    """Turns a person's mistake into one message and exit code 2; a fault keeps its traceback and exit code 1."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except UserError as error:
            click.echo(f"Error: {error}", err=True)
            context.exit(2)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="robust-distillation")
def main() -> None:
    """Distils adversarial robustness from a large teacher into small students, and shows what came out.

    `make reproduce` runs all of it in order; each command here is one step of an experiment.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    logging.getLogger("auto-attack").setLevel(logging.WARNING)


def experiment_options(command: Callable) -> Callable:
    command = click.option("--overlay", metavar="FILE", help="Values to put in place of the experiment's.")(command)
    return click.option(
        "--experiment", "path", metavar="FILE", default="params.yaml", show_default=True, help="The experiment file."
    )(command)


def example(text: str) -> Callable:
    """Adds `Example: ...` at the end of a command's help."""

    def with_example(command: Callable) -> Callable:
        command.__doc__ = f"{command.__doc__}\n\nExample: robust-distillation {text}"
        return command

    return with_example


@main.command()
@experiment_options
@example("plan --experiment experiments/fashion_mnist.yaml")
def plan(path: str, overlay: str | None) -> None:
    """Print what an experiment will do: its runs, its jobs and the size of its cache."""
    from robust_distillation.config import load
    from robust_distillation.reporting.plan import describe

    click.echo(describe(load(path, overlay)))


@main.command()
@experiment_options
@example("reproduce --experiment experiments/fashion_mnist.yaml")
def reproduce(path: str, overlay: str | None) -> None:
    """Run an experiment through Snakemake, from nothing to the table; what is done already stays.

    Ends by printing the table and where to look next.
    """
    from robust_distillation.config import load
    from robust_distillation.reporting.reproduce import run_workflow

    experiment = load(path, overlay)
    _check_data(experiment)
    sys.exit(run_workflow(experiment, path, overlay))


@main.command()
@experiment_options
@example("check --experiment params.yaml")
def check(path: str, overlay: str | None) -> None:
    """Check an experiment file, and that its data are here or may be fetched. Writes nothing."""
    from robust_distillation.config import load

    experiment = load(path, overlay)
    _check_data(experiment)
    click.echo(f"{path}: experiment {experiment.name}, students to train: {len(experiment.runs)}")


@main.command("prepare-data")
@experiment_options
@example("prepare-data")
def prepare_data(path: str, overlay: str | None) -> None:
    """Fetch the dataset where it is missing, and write down what it is."""
    from robust_distillation.config import load
    from robust_distillation.data.prepared import description
    from robust_distillation.files import write_json
    from robust_distillation.provenance.record import Recorder
    from robust_distillation.provenance.steps import data_code

    experiment = load(path, overlay)
    _check_data(experiment)
    layout = Layout(experiment.name)
    recorder = Recorder("prepare-data", experiment.data_settings(), data_code(experiment))
    write_json(layout.data, description(experiment))
    recorder.write(layout.record(layout.data), {}, [layout.data])


@main.command("train-teacher")
@click.argument("teacher")
@experiment_options
@example("train-teacher wide")
def train_teacher(teacher: str, path: str, overlay: str | None) -> None:
    """Train a teacher of the experiment."""
    from robust_distillation.config import load
    from robust_distillation.errors import unknown
    from robust_distillation.provenance.record import Recorder
    from robust_distillation.provenance.steps import teacher_code

    experiment = load(path, overlay)
    if teacher not in experiment.teachers:
        raise UserError(unknown("teacher", teacher, experiment.teachers))
    layout, settings = Layout(experiment.name), experiment.teacher_settings(teacher)
    recorder = Recorder("train-teacher", settings, teacher_code(experiment, teacher))
    chosen = experiment.teachers[teacher]
    _train(
        experiment, layout.teacher(teacher), settings, recorder, chosen.training, chosen.trained_by.settings,
        role="teacher",
    )  # fmt: skip


@main.command("fill-cache")
@click.argument("teacher")
@click.argument("kind", type=click.Choice(["logits", "features"]))
@experiment_options
@example("fill-cache wide logits")
def fill_cache(teacher: str, kind: str, path: str, overlay: str | None) -> None:
    """Store a teacher's logits or features for every view of every training image."""
    from robust_distillation.cache.fill import fill_cache
    from robust_distillation.cache.store import description_of
    from robust_distillation.cache.teaching import key_of, weights_of
    from robust_distillation.compute import device_of
    from robust_distillation.config import load
    from robust_distillation.data.prepared import scheme_of, split_of
    from robust_distillation.errors import unknown
    from robust_distillation.files import sha256
    from robust_distillation.models.checkpoint import load_model
    from robust_distillation.provenance.record import Recorder
    from robust_distillation.provenance.steps import cache_code

    experiment = load(path, overlay)
    if teacher not in experiment.teachers:
        raise UserError(unknown("teacher", teacher, experiment.teachers))
    layout = Layout(experiment.name)
    recorder = Recorder("fill-cache", experiment.cache_settings(kind), cache_code(experiment, teacher))
    device, data, scheme = device_of(experiment), split_of(experiment, "train"), scheme_of(experiment)
    weights, output = weights_of(experiment, teacher), layout.cache(teacher, kind)
    fill_cache(output, key_of(experiment, teacher, kind, data), load_model(weights), data, scheme, kind, device)
    inputs = {file: sha256(file) for file in (layout.data, weights)}
    recorder.write(layout.record(output), inputs, [output, description_of(output)])


@main.command("train-student")
@click.argument("run")
@experiment_options
@example("train-student wide/small/rslad/seed-0")
def train_student(run: str, path: str, overlay: str | None) -> None:
    """Train one student. RUN is TEACHER/STUDENT/METHOD/seed-N; TEACHER is none where the method needs none."""
    from robust_distillation.config import load
    from robust_distillation.provenance.record import Recorder
    from robust_distillation.provenance.steps import student_code

    experiment = load(path, overlay)
    chosen = _run(experiment, run)
    layout, settings = Layout(experiment.name), experiment.student_settings(chosen)
    recorder = Recorder("train-student", settings, student_code(experiment, chosen))
    folder = layout.student(chosen.teacher, chosen.student, chosen.method, chosen.seed)
    _train(
        experiment, folder, settings, recorder, experiment.training, experiment.methods[chosen.method].settings,
        role="student", teacher=chosen.teacher,
    )  # fmt: skip


@main.command()
@click.argument("model")
@click.option("--shard", metavar="I-of-N", help="Only this share of the blocks.")
@experiment_options
@example("attack wide/small/rslad/seed-0")
def attack(model: str, shard: str | None, path: str, overlay: str | None) -> None:
    """Attack the checkpoints of a student (TEACHER/STUDENT/METHOD/seed-N) or of a teacher (its name)."""
    from robust_distillation.compute import device_of
    from robust_distillation.config import load
    from robust_distillation.data.prepared import split_of
    from robust_distillation.evaluation import blocks
    from robust_distillation.evaluation.attack import attack_run
    from robust_distillation.evaluation.outcomes import write_outcomes
    from robust_distillation.files import sha256
    from robust_distillation.provenance.record import Recorder
    from robust_distillation.provenance.steps import attack_code

    experiment = load(path, overlay)
    layout, evaluation = Layout(experiment.name), experiment.evaluation
    folder, keys, architecture, checkpoints = _attacked(experiment, layout, model)
    settings = experiment.attack_settings(list(checkpoints))
    recorder = Recorder("attack", settings, attack_code(experiment, architecture))
    todo = blocks.blocks(experiment.test_images, evaluation.block_size, evaluation.seed)
    output = layout.outcomes(folder)
    if shard is not None:
        output = layout.shard(folder, shard)
        number, of = _shard(shard)
        todo = blocks.shard(todo, number, of)
    outcomes = attack_run(
        checkpoints, split_of(experiment, "test"), todo, evaluation.attacks, experiment.threat_model,
        device_of(experiment),
        on_block=lambda checkpoint, block: log.info(
            "%s: attacked images %d to %d with seed %d", checkpoint, block.start, block.stop - 1, block.seed
        ),
    )  # fmt: skip
    write_outcomes(output, outcomes.assign(**keys))
    inputs = {file: sha256(file) for file in (layout.data, *checkpoints.values())}
    recorder.write(layout.record(output), inputs, [output])


@main.command("merge-outcomes")
@click.argument("model")
@experiment_options
@example("merge-outcomes wide/small/rslad/seed-0")
def merge_outcomes(model: str, path: str, overlay: str | None) -> None:
    """Put the outcomes of a model's shards together."""
    from robust_distillation.config import load
    from robust_distillation.evaluation.outcomes import merge, write_outcomes
    from robust_distillation.files import sha256
    from robust_distillation.provenance.record import Recorder
    from robust_distillation.provenance.steps import merge_code

    experiment = load(path, overlay)
    layout = Layout(experiment.name)
    folder, *_ = _attacked(experiment, layout, model)
    shards = [layout.shard(folder, f"{i}-of-{experiment.shards}") for i in range(1, experiment.shards + 1)]
    recorder = Recorder("merge-outcomes", {"shards": experiment.shards}, merge_code())
    write_outcomes(layout.outcomes(folder), merge(shards))
    output = layout.outcomes(folder)
    recorder.write(layout.record(output), {file: sha256(file) for file in shards}, [output])


@main.command()
@experiment_options
@example("tabulate")
def tabulate(path: str, overlay: str | None) -> None:
    """Make the comparison tables (CSV, Markdown, LaTeX) and the headline metrics from the outcomes."""
    import shutil

    from robust_distillation.config import load
    from robust_distillation.evaluation.outcomes import ITSELF, read_outcomes
    from robust_distillation.files import write_json, write_text
    from robust_distillation.reporting import tables

    experiment = load(path, overlay)
    layout, matrix = Layout(experiment.name), _matrix(experiment)
    table = tables.tidy(read_outcomes(_outcome_files(experiment, layout)), matrix)
    write_text(layout.tables / "main.csv", table.to_csv(index=False))
    write_text(layout.tables / "main.md", tables.markdown(table, matrix))
    write_text(layout.tables / "main.tex", tables.latex(table, matrix))
    shutil.rmtree(layout.metrics, ignore_errors=True)  # of methods that the experiment no longer has
    for (teacher, student, method), numbers in tables.headline(table, matrix).items():
        model = (teacher,) if student == ITSELF else (teacher, student, method)
        write_json(layout.headline(*model), numbers)


@main.command("draw-figures")
@experiment_options
@example("draw-figures")
def draw_figures(path: str, overlay: str | None) -> None:
    """Draw training curves, clean against robust accuracy, and robustness by class."""
    from robust_distillation.config import load
    from robust_distillation.evaluation.outcomes import read_outcomes
    from robust_distillation.reporting.curves import read_curves
    from robust_distillation.reporting.figures import draw_all

    experiment = load(path, overlay)
    layout = Layout(experiment.name)
    outcomes = read_outcomes(_outcome_files(experiment, layout))
    curves = read_curves(experiment.runs, layout)
    draw_all(outcomes, curves, _matrix(experiment), experiment.info.classes, layout.figures)


@main.command()
@experiment_options
@example("track")
def track(path: str, overlay: str | None) -> None:
    """Import finished runs into MLflow; what is there already stays. MLFLOW_TRACKING_URI chooses another store."""
    from robust_distillation.config import load
    from robust_distillation.files import write_json
    from robust_distillation.tracking.runs import import_runs

    experiment = load(path, overlay)
    layout = Layout(experiment.name)
    missing = [file for file in _outcome_files(experiment, layout) if not file.is_file()]
    if missing:
        raise UserError(f"{missing[0]}: is not there yet. Run the experiment first: robust-distillation reproduce")
    ids = import_runs(experiment, layout)
    write_json(layout.tracked, ids)
    click.echo(f"{len(ids)} runs of experiment {experiment.name} are in MLflow")


# What the commands share


def _check_data(experiment: Experiment) -> None:
    from robust_distillation import data

    data.registry.module(experiment.dataset.name).check(experiment.dataset.folder, experiment.dataset.download)


def _run(experiment: Experiment, text: str, also: Iterable[str] = ()) -> Run:
    """The run that `text` names; `also` are names that would have been right here too."""
    known = {f"{r.teacher}/{r.student}/{r.method}/seed-{r.seed}": r for r in experiment.runs}
    if text not in known:
        from robust_distillation.errors import unknown

        what = "teacher or run" if also else "run"
        raise UserError(unknown(f"{what} of experiment {experiment.name}", text, [*also, *known]))
    return known[text]


def _attacked(experiment: Experiment, layout: Layout, model: str) -> tuple[Path, dict, dict, dict[str, Path]]:
    """Folder, outcome keys, architecture and checkpoints of a student or, by its bare name, of a teacher."""
    from robust_distillation.evaluation.outcomes import ITSELF

    if model in experiment.teachers:
        teacher = experiment.teachers[model]
        folder, architecture, names = layout.teacher(model), teacher.architecture, [teacher.checkpoint]
        keys = {"teacher": model, "student": ITSELF, "method": teacher.trained_by.kind, "seed": teacher.seed}
    else:
        run = _run(experiment, model, also=experiment.teachers)
        folder = layout.student(run.teacher, run.student, run.method, run.seed)
        architecture, names = experiment.students[run.student], experiment.evaluation.checkpoints
        keys = {"teacher": run.teacher, "student": run.student, "method": run.method, "seed": run.seed}
    return folder, keys, architecture, {name: folder / f"{name}.safetensors" for name in names}


def _shard(text: str) -> tuple[int, int]:
    number, _, of = text.partition("-of-")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise UserError(f"--shard {text!r}: give it as I-of-N with I from 1 to N, e.g. 2-of-3")
    return int(number), int(of)


def _outcome_files(experiment: Experiment, layout: Layout) -> list[Path]:
    folders = [layout.teacher(name) for name in experiment.teachers]
    folders += [layout.student(run.teacher, run.student, run.method, run.seed) for run in experiment.runs]
    return [layout.outcomes(folder) for folder in folders]


def _matrix(experiment: Experiment) -> Any:
    from robust_distillation.reporting.tables import Matrix

    return Matrix(**experiment.matrix())


def _train(
    experiment: Experiment,
    folder: Path,
    settings: dict[str, Any],
    recorder: Any,
    training: Any,
    method: Any,
    *,
    role: str,
    teacher: str | None = None,
) -> None:
    """Trains a teacher or a student and writes its four files into `folder`."""
    from robust_distillation.compute import device_of
    from robust_distillation.data.prepared import scheme_of, split_of
    from robust_distillation.files import sha256
    from robust_distillation.training.run import train_to_files

    written = Layout(experiment.name).data
    device, data, inputs = device_of(experiment), split_of(experiment, "train"), {written: sha256(written)}
    lessons = None
    if method.needs.teacher:
        from robust_distillation.cache.teaching import teaching

        lessons = teaching(experiment, teacher, method.needs, data, device)
        inputs |= lessons.files
    outputs = train_to_files(
        folder, settings, training, method, experiment.threat_model, data, split_of(experiment, "validation"),
        scheme_of(experiment), device,
        description={
            "role": role,
            "teacher": teacher,
            "training_images": data.digest(),
            "hashes": {str(file): known for file, known in inputs.items()},
        },
        teacher=lessons and lessons.teacher,
        teacher_features=lessons.features if lessons else 0,
    )  # fmt: skip
    record = folder / "record.json"
    recorder.write(record, inputs, outputs, teacher_served_from=lessons.served_from if lessons else {})


if __name__ == "__main__":
    main()
