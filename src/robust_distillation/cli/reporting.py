"""Tables, figures, and the import into MLflow."""

from __future__ import annotations

import click

from robust_distillation.cli.shared import check_structure, example, experiment_options, target_named
from robust_distillation.errors import UserError
from robust_distillation.layout import Layout


@click.command()
@experiment_options
@example("tabulate")
def tabulate(path: str, overlay: str | None) -> None:
    """Make the comparison tables (CSV, Markdown, LaTeX) and the headline metrics from the outcomes."""
    from robust_distillation.config import load
    from robust_distillation.evaluation.outcomes import read_outcomes
    from robust_distillation.pipeline import links
    from robust_distillation.pipeline.record import recorded
    from robust_distillation.reporting import tables

    experiment = load(path, overlay)
    with recorded(link := links.tabulate(experiment)):
        tables.write(read_outcomes(link.inputs), tables.Matrix(**experiment.matrix()), Layout(experiment.name))


@click.command("report-structure")
@experiment_options
@example("report-structure")
def report_structure(path: str, overlay: str | None) -> None:
    """Make the table and the figures of what the models know of the classes."""
    from robust_distillation.config import load
    from robust_distillation.files import read_json
    from robust_distillation.pipeline import links
    from robust_distillation.pipeline.record import recorded
    from robust_distillation.reporting import structure
    from robust_distillation.reporting.tables import Matrix

    experiment = load(path, overlay)
    check_structure(experiment)
    layout, matrix = Layout(experiment.name), Matrix(**experiment.matrix())
    with recorded(link := links.report_structure(experiment)):
        found = [read_json(file) for file in link.inputs]
        structure.write_tables(found, matrix, layout.tables)
        structure.draw_all(found, matrix, experiment.info.classes, layout.figures)


@click.command("report-transfer")
@click.argument("target")
@experiment_options
@example("report-transfer parity")
def report_transfer(target: str, path: str, overlay: str | None) -> None:
    """Make the table and the figures of the transfer to another task."""
    from robust_distillation.config import load
    from robust_distillation.evaluation.outcomes import read_outcomes
    from robust_distillation.pipeline import links
    from robust_distillation.pipeline.record import recorded
    from robust_distillation.reporting import transfer
    from robust_distillation.reporting.tables import Matrix

    experiment = load(path, overlay)
    layout, chosen = Layout(experiment.name), target_named(experiment, target)
    matrix = Matrix(**experiment.matrix()).transferred(chosen.attacks)
    with recorded(link := links.report_transfer(experiment, target)):
        outcomes = read_outcomes(link.inputs)
        transfer.write_tables(outcomes, matrix, target, layout.tables)
        transfer.draw_all(outcomes, matrix, target, layout.figures)


@click.command("draw-figures")
@experiment_options
@example("draw-figures")
def draw_figures(path: str, overlay: str | None) -> None:
    """Draw training curves, clean against robust accuracy, and robustness by class."""
    from robust_distillation.config import load
    from robust_distillation.evaluation.outcomes import read_outcomes
    from robust_distillation.pipeline import links
    from robust_distillation.pipeline.record import recorded
    from robust_distillation.reporting.curves import read_curves
    from robust_distillation.reporting.figures import draw_all
    from robust_distillation.reporting.tables import Matrix

    experiment = load(path, overlay)
    layout = Layout(experiment.name)
    with recorded(links.draw_figures(experiment)):
        outcomes, curves = read_outcomes(links.outcomes(experiment)), read_curves(experiment.runs, layout)
        draw_all(outcomes, curves, Matrix(**experiment.matrix()), experiment.info.classes, layout.figures)


@click.command()
@experiment_options
@example("track")
def track(path: str, overlay: str | None) -> None:
    """Import finished runs into MLflow; what is there already stays. MLFLOW_TRACKING_URI chooses another store."""
    from robust_distillation.config import load
    from robust_distillation.files import read_json, write_json
    from robust_distillation.pipeline import links
    from robust_distillation.pipeline.record import recorded
    from robust_distillation.tracking.runs import import_runs

    experiment = load(path, overlay)
    layout, link = Layout(experiment.name), links.track(experiment)
    missing = [file for file in link.inputs if not file.is_file()]
    if missing:
        raise UserError(f"{missing[0]}: is not there yet. Run the experiment first: robust-distillation reproduce")
    contents = import_runs(experiment, layout)
    if not (layout.tracked.is_file() and link.record.is_file() and read_json(layout.tracked) == contents):
        # Else it was imported before, maybe elsewhere: what is versioned stays as it is.
        with recorded(link):
            write_json(layout.tracked, contents)
    click.echo(f"{len(contents)} runs of experiment {experiment.name} are in MLflow")


@click.command()
@experiment_options
@example("report")
def report(path: str, overlay: str | None) -> None:
    """Make the report: what came out, as one HTML file that needs no network."""
    from robust_distillation.config import load
    from robust_distillation.files import write_text
    from robust_distillation.pipeline import links
    from robust_distillation.pipeline.record import recorded
    from robust_distillation.reporting.report.page import page

    experiment = load(path, overlay)
    text = page(experiment)
    with recorded(links.report(experiment)):
        write_text(Layout(experiment.name).report, text)


@click.command()
@experiment_options
@example("index")
def index(path: str, overlay: str | None) -> None:
    """Write down the hashes of all artefacts and records, once everything is made."""
    from robust_distillation.config import load
    from robust_distillation.files import write_json
    from robust_distillation.pipeline import links
    from robust_distillation.pipeline.index import index as index_of

    experiment = load(path, overlay)
    layout = Layout(experiment.name)
    missing = [file for file in links.index(experiment).inputs if not file.is_file()]
    if missing:
        raise UserError(f"{missing[0]}: is not there yet. Run the experiment first: robust-distillation reproduce")
    write_json(layout.index, index_of(links.links(experiment), layout))


COMMANDS = (tabulate, draw_figures, report_structure, report_transfer, track, report, index)
