"""Methods against each other, and the experiment's claims."""

from __future__ import annotations

import click

from robust_distillation.cli.shared import example, experiment_options
from robust_distillation.layout import Layout


@click.command()
@experiment_options
@example("compare")
def compare(path: str, overlay: str | None) -> None:
    """Compare every two methods on the same images and seeds, and judge the experiment's claims."""
    from robust_distillation.config import load
    from robust_distillation.pipeline import links
    from robust_distillation.pipeline.record import recorded
    from robust_distillation.reporting import claims

    experiment = load(path, overlay)
    with recorded(links.compare(experiment)):
        claims.write(experiment, links.evidence(experiment), Layout(experiment.name).tables)


COMMANDS = (compare,)
