"""The tuning stage: short runs of every candidate, the choice between them, and their table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robust_distillation.cli.shared import example, experiment_options
from robust_distillation.cli.training import train
from robust_distillation.errors import UserError, unknown
from robust_distillation.layout import Layout

if TYPE_CHECKING:
    from robust_distillation.config import Experiment


@click.command()
@click.argument("model")
@click.argument("candidate")
@experiment_options
@example("tune wide/small/rslad learning_rate=0.1")
def tune(model: str, candidate: str, path: str, overlay: str | None) -> None:
    """Train one candidate of a method's grid, shortly. MODEL is TEACHER/STUDENT/METHOD."""
    from robust_distillation.config import load
    from robust_distillation.pipeline.record import Recorder
    from robust_distillation.pipeline.steps import tune_code

    experiment = load(path, overlay)
    teacher, student, method = _tuned_named(experiment, model)
    if candidate not in experiment.candidates[method]:
        raise UserError(unknown(f"candidate of {method}", candidate, experiment.candidates[method]))
    settings = experiment.candidate_settings(student, method, candidate)
    recorder = Recorder("tune", settings, tune_code(experiment, teacher, student, method))
    folder = Layout(experiment.name).candidates(teacher, student, method) / candidate
    recipe = experiment.short_recipe(student, method, candidate)
    train(experiment, folder, settings, recorder, recipe, role="candidate", teacher=teacher)


@click.command("choose")
@click.argument("model")
@experiment_options
@example("choose wide/small/rslad")
def choose(model: str, path: str, overlay: str | None) -> None:
    """Choose between a method's candidates. MODEL is TEACHER/STUDENT/METHOD.

    The highest accuracy on the validation split under APGD-CE decides, then the clean one, then the grid's order.
    """
    from robust_distillation.config import load
    from robust_distillation.files import sha256, write_json
    from robust_distillation.pipeline.record import Recorder
    from robust_distillation.pipeline.steps import choice_code
    from robust_distillation.training import tuning

    experiment = load(path, overlay)
    names = _tuned_named(experiment, model)
    layout, candidates = Layout(experiment.name), experiment.candidates[names[-1]]
    recorder = Recorder("choose", experiment.choice_settings(names[-1]), choice_code())
    runs = {name: layout.candidates(*names) / name / "metrics.jsonl" for name in candidates}
    chosen, scores = tuning.choose({name: _read_lines(file) for name, file in runs.items()})
    keys = dict(zip(("teacher", "student", "method"), names, strict=True))
    compared = [{"name": name, **candidates[name].resolved(), **scores[name]} for name in candidates]
    outputs = [layout.choice(*names), layout.candidates(*names) / "candidates.json"]
    write_json(outputs[1], {**keys, "chosen": chosen, "candidates": compared})
    write_json(outputs[0], tuning.choice(*names, candidates[chosen]))
    recorder.write(layout.record(outputs[0]), {file: sha256(file) for file in runs.values()}, outputs)


@click.command("report-tuning")
@experiment_options
@example("report-tuning")
def report_tuning(path: str, overlay: str | None) -> None:
    """Make the table of the tuning stage: every candidate, its accuracy on the validation split, and the choice."""
    from robust_distillation.config import load
    from robust_distillation.files import read_json
    from robust_distillation.pipeline import links
    from robust_distillation.pipeline.record import recorded
    from robust_distillation.reporting.tuning import write_tables

    experiment = load(path, overlay)
    _check_tuning(experiment)
    with recorded(link := links.report_tuning(experiment)):
        found = [read_json(file) for file in link.inputs]
        write_tables(found, link.settings, Layout(experiment.name).tables)


def _tuned_named(experiment: Experiment, text: str) -> tuple[str, str, str]:
    _check_tuning(experiment)
    known = {"/".join(names): names for names in experiment.tuned}
    if text not in known:
        raise UserError(unknown(f"tuned method of experiment {experiment.name}", text, known))
    return known[text]


def _check_tuning(experiment: Experiment) -> None:
    if experiment.file.tuning is None:
        raise UserError(f"experiment {experiment.name}: has no tuning stage: give its file the key `tuning`")


def _read_lines(file: Path) -> list[dict[str, Any]]:
    from robust_distillation.files import read_json_lines

    try:
        return read_json_lines(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error}). Remove it; the next start trains it again") from error


COMMANDS = (tune, choose, report_tuning)
