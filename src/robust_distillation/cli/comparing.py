"""Methods against each other, and the experiment's claims."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from robust_distillation.cli.shared import all_folders, example, experiment_options
from robust_distillation.layout import Layout

if TYPE_CHECKING:
    from robust_distillation.config import Experiment
    from robust_distillation.reporting.claims import Evidence
    from robust_distillation.reporting.tables import Matrix

STRUCTURE = "structure"


@click.command()
@experiment_options
@example("compare")
def compare(path: str, overlay: str | None) -> None:
    """Compare every two methods on the same images and seeds, and judge the experiment's claims."""
    from robust_distillation.config import claims_of, comparison_settings, load
    from robust_distillation.files import sha256
    from robust_distillation.provenance.record import Recorder
    from robust_distillation.provenance.steps import compare_code
    from robust_distillation.reporting import claims, comparisons
    from robust_distillation.reporting.tables import Matrix

    experiment = load(path, overlay)
    layout, matrix = Layout(experiment.name), Matrix(**experiment.matrix())
    settings = comparison_settings(experiment)
    recorder = Recorder("compare", settings, compare_code(experiment))
    files = _files(experiment, layout)
    evidence = _evidence(files, matrix)
    table = comparisons.tidy(evidence.outcomes[""], matrix)
    verdicts = claims.judged(claims_of(experiment), evidence, matrix, settings["scale"])
    written = comparisons.write_tables(table, matrix, layout.tables)
    written += claims.write_tables(verdicts, matrix, layout.tables)
    inputs = {file: sha256(file) for group in files.values() for file in group}
    recorder.write(layout.record(written[0]), inputs, written)


def _files(experiment: Experiment, layout: Layout) -> dict[str, list[Path]]:
    """What comparisons and claims are made of: the outcomes on the experiment's images under "", and those of each
    analysis that a claim is about."""
    from robust_distillation.config import claims_of

    folders = all_folders(experiment, layout)
    files = {"": [layout.outcomes(folder) for folder in folders]}
    for analysis in dict.fromkeys(claim.statement.analysis for claim in claims_of(experiment)):
        if analysis == STRUCTURE:
            files[analysis] = [layout.structure(folder) for folder in folders]
        elif analysis:
            target = analysis.removeprefix("transfer-")
            files[analysis] = [layout.transferred(target, folder) for folder in folders]
    return files


def _evidence(files: dict[str, list[Path]], matrix: Matrix) -> Evidence:
    from robust_distillation.evaluation.comparing import Outcomes
    from robust_distillation.evaluation.outcomes import read_outcomes
    from robust_distillation.reporting.claims import Evidence

    distances = None
    if STRUCTURE in files:
        from robust_distillation.files import read_json
        from robust_distillation.reporting import structure

        distances = structure.distances([read_json(file) for file in files[STRUCTURE]], matrix)
    outcomes = {name: Outcomes.of(read_outcomes(group)) for name, group in files.items() if name != STRUCTURE}
    return Evidence(outcomes, distances)


COMMANDS = (compare,)
