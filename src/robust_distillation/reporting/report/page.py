"""The HTML page of the report, made of all sections."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

from itables import options
from jinja2 import Environment, PackageLoader, StrictUndefined

from robust_distillation.config import Experiment
from robust_distillation.reporting.figures.style import THEME
from robust_distillation.reporting.report import (
    accuracy,
    cost,
    dag,
    headline,
    lineage,
    masking,
    results,
    robustness,
    training,
    tuning,
    verdicts,
)
from robust_distillation.reporting.report.elements import Section
from robust_distillation.reporting.report.report_data import ReportData, load_report_data

SECTIONS: tuple[Callable[[ReportData], Section | None], ...] = (
    headline.section, verdicts.claims, results.section, verdicts.comparisons, training.section,
    accuracy.trade_offs, robustness.curves, accuracy.classes, masking.section, results.structures, results.transfers,
    tuning.section, robustness.gallery, cost.section, dag.section, lineage.section,
)  # fmt: skip


def page(experiment: Experiment) -> str:
    """Renders the HTML report of a finished experiment and returns its text. Nothing is written.

    The page needs no network: its styles, figures and scripts are part of it. The sections stand in the order of the
    tuple SECTIONS: overview, verdicts on claims, results, comparisons, training, and so on. A section that needs an
    entry that the experiment file does not have, such as `tuning`, is left out. The same input files give the same
    text.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load("params.yaml")` returns it.
            All steps before the report must have been run.

    Returns:
        A complete HTML document.

    Raises:
        UserError: if an input file is missing, if a JSON file or an outcome file is damaged, or if the seeds of a
            method, or a student and its teacher, were not attacked on the same images.
    """
    report = load_report_data(experiment)
    sections = [section for make in SECTIONS if (section := make(report))]
    templates = Environment(
        loader=PackageLoader(__package__, "templates"),
        autoescape=True,  # classes and imported models are called whatever somebody called them
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template("page.html.jinja").render(
        experiment=experiment,
        spec=report.spec,
        sections=sections,
        node=dag.NODE,
        side=robustness.SIDE,
        datatables=_datatables(),
        theme=THEME,
    )


def _datatables() -> str:
    """DataTables as itables bundles it, for a `data:` URL."""
    return base64.b64encode(Path(options.dt_bundle).read_bytes()).decode()
