"""Tables, figures, and the import into MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from robust_distillation.cli.shared import all_folders, check_structure, example, experiment_options, target_named
from robust_distillation.errors import UserError
from robust_distillation.layout import Layout

if TYPE_CHECKING:
    import pandas as pd

    from robust_distillation.config import Experiment


@click.command()
@experiment_options
@example("tabulate")
def tabulate(path: str, overlay: str | None) -> None:
    """Make the comparison tables (CSV, Markdown, LaTeX) and the headline metrics from the outcomes."""
    import shutil

    from robust_distillation.config import load
    from robust_distillation.evaluation.outcomes import ITSELF
    from robust_distillation.files import write_json, write_text
    from robust_distillation.reporting import tables

    experiment = load(path, overlay)
    layout, matrix = Layout(experiment.name), _matrix(experiment)
    table = tables.tidy(_outcomes(experiment, layout), matrix)
    shown = {"main": tables.View(table, matrix, ""), **tables.named_tables(table, matrix)}
    for name, view in shown.items():
        write_text(layout.tables / f"{name}.csv", view.table.to_csv(index=False))
        write_text(layout.tables / f"{name}.md", tables.markdown(*view))
        write_text(layout.tables / f"{name}.tex", tables.latex(*view))
    shutil.rmtree(layout.metrics, ignore_errors=True)  # of methods that the experiment no longer has
    for (teacher, student, method), numbers in tables.headline(table, matrix).items():
        model = (teacher,) if student == ITSELF else (teacher, student, method)
        write_json(layout.headline(*model), numbers)


@click.command("report-structure")
@experiment_options
@example("report-structure")
def report_structure(path: str, overlay: str | None) -> None:
    """Make the table and the figures of what the models know of the classes."""
    from robust_distillation.config import load
    from robust_distillation.files import read_json
    from robust_distillation.reporting import structure

    experiment = load(path, overlay)
    check_structure(experiment)
    layout, matrix = Layout(experiment.name), _matrix(experiment)
    found = [read_json(layout.structure(folder)) for folder in all_folders(experiment, layout)]
    structure.write_tables(found, matrix, layout.tables)
    structure.draw_all(found, matrix, experiment.info.classes, layout.figures)


@click.command("report-transfer")
@click.argument("target")
@experiment_options
@example("report-transfer parity")
def report_transfer(target: str, path: str, overlay: str | None) -> None:
    """Make the table and the figures of the transfer to another task."""
    from dataclasses import replace

    from robust_distillation.config import load
    from robust_distillation.evaluation.outcomes import read_outcomes
    from robust_distillation.reporting import transfer

    experiment = load(path, overlay)
    layout, matrix = Layout(experiment.name), _matrix(experiment)
    matrix = replace(
        matrix, metrics=["clean", *target_named(experiment, target).attacks], checkpoints=matrix.checkpoints[:1]
    )
    outcomes = read_outcomes(layout.transferred(target, folder) for folder in all_folders(experiment, layout))
    transfer.write_tables(outcomes, matrix, target, layout.tables)
    transfer.draw_all(outcomes, matrix, target, layout.figures)


@click.command("draw-figures")
@experiment_options
@example("draw-figures")
def draw_figures(path: str, overlay: str | None) -> None:
    """Draw training curves, clean against robust accuracy, and robustness by class."""
    from robust_distillation.config import load
    from robust_distillation.reporting.curves import read_curves
    from robust_distillation.reporting.figures import draw_all

    experiment = load(path, overlay)
    layout = Layout(experiment.name)
    outcomes = _outcomes(experiment, layout)
    curves = read_curves(experiment.runs, layout)
    draw_all(outcomes, curves, _matrix(experiment), experiment.info.classes, layout.figures)


@click.command()
@experiment_options
@example("track")
def track(path: str, overlay: str | None) -> None:
    """Import finished runs into MLflow; what is there already stays. MLFLOW_TRACKING_URI chooses another store."""
    from robust_distillation.config import load
    from robust_distillation.files import write_json
    from robust_distillation.tracking.runs import import_runs

    experiment = load(path, overlay)
    layout = Layout(experiment.name)
    try:
        contents = import_runs(experiment, layout)
    except FileNotFoundError as error:
        message = f"{error.filename}: is not there yet. Run the experiment first: robust-distillation reproduce"
        raise UserError(message) from None
    write_json(layout.tracked, contents)
    click.echo(f"{len(contents)} runs of experiment {experiment.name} are in MLflow")


@click.command()
@experiment_options
@example("report")
def report(path: str, overlay: str | None) -> None:
    """Make the report: what came out, as one HTML file that needs no network."""
    from robust_distillation.config import load
    from robust_distillation.files import sha256, write_text
    from robust_distillation.provenance import steps
    from robust_distillation.provenance.record import Recorder
    from robust_distillation.reporting.report.page import page
    from robust_distillation.reporting.report.sources import sources

    experiment = load(path, overlay)
    recorder = Recorder("report", experiment.matrix(), steps.report_code())
    output = Layout(experiment.name).report
    write_text(output, page(experiment))
    inputs = {file: sha256(file) for file in sources(experiment)}
    recorder.write(Layout(experiment.name).record(output), inputs, [output])


def _outcomes(experiment: Experiment, layout: Layout) -> pd.DataFrame:
    from robust_distillation.evaluation.outcomes import read_outcomes

    return read_outcomes(layout.outcomes(folder) for folder in all_folders(experiment, layout))


def _matrix(experiment: Experiment) -> Any:
    from robust_distillation.reporting.tables import Matrix

    return Matrix(**experiment.matrix())


COMMANDS = (tabulate, draw_figures, report_structure, report_transfer, track, report)
