"""Offers the commands `audit` and `explain`: verify the results, and trace one number back to its data."""

from __future__ import annotations

import sys

import click

from robust_distillation.cli.shared import example, experiment_options


@click.command()
@click.option("--recompute", metavar="N", type=click.IntRange(min=0), default=0, help="Attack again for N table cells.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the choice of those cells; random if left out.")
@experiment_options
@example("audit --recompute 5")
def audit(recompute: int, seed: int | None, path: str, overlay: str | None) -> None:
    """Follow every table cell back to outcomes, checkpoint, cache, teacher, data, settings, code and commit.

    Hashes every file and makes every table again. Prints each file and cell that does not fit, and for the first of
    them the files that depend on it. With --recompute, N cells of the main table are drawn at random by --seed, and
    their checkpoints are attacked again; a cell does not fit if the results of more than 2 % of the test images differ.
    The seed is printed.

    Exit code 0 if everything fits, 1 if something does not. Nothing is written.

    --experiment names the YAML file of the experiment (params.yaml by default), and --overlay a YAML file whose values
    replace those in it.
    """
    import secrets

    from robust_distillation.audit.audit import audit as audit_of
    from robust_distillation.audit.audit import format_audit
    from robust_distillation.config import load

    experiment = load(path, overlay)
    result = audit_of(experiment)
    click.echo(format_audit(result, experiment))
    failed = bool(result.findings)
    if recompute:
        from robust_distillation.audit.recompute import recompute_cells

        seed = secrets.randbelow(2**31) if seed is None else seed
        click.echo(f"recomputing {recompute} cells chosen with --seed {seed}")
        for cell in recompute_cells(experiment, recompute, seed):
            click.echo(cell.text())
            failed |= not cell.fits
    sys.exit(1 if failed else 0)


@click.command()
@click.argument("cell")
@experiment_options
@example("explain wide/small/rslad/best/autoattack")
def explain(cell: str, path: str, overlay: str | None) -> None:
    """Trace one number back to its data. CELL is TEACHER/STUDENT/METHOD/CHECKPOINT/METRIC of the main table.

    STUDENT is - for a teacher's own number. Prints the number, the result of each seed, and the files, steps, settings,
    machines and times behind them.

    --experiment names the YAML file of the experiment (params.yaml by default), and --overlay a YAML file whose values
    replace those in it.
    """
    from robust_distillation.audit.lineage import format_sections, trace_cell
    from robust_distillation.config import load
    from robust_distillation.reporting.cells import cell_named

    experiment = load(path, overlay)
    click.echo(format_sections(trace_cell(experiment, cell_named(experiment, cell))))


COMMANDS = (audit, explain)
