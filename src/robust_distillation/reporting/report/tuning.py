"""The section on tuning: every candidate of every method, and the chosen one."""

from __future__ import annotations

import json

import pandas as pd

from robust_distillation.comparison import Comparison
from robust_distillation.reporting.report.elements import Cell, Group, Head, Section, Table
from robust_distillation.reporting.report.report_data import ReportData


def section(report: ReportData) -> Section | None:
    """Makes the report's section on hyperparameter tuning.

    For each teacher and student it contains a table with a row for each candidate (a combination of hyperparameter
    values) of each method: accuracy in percent on the validation split under the attack of `training.selection`
    (`apgd`, `pgd10` or `pgd_trades`) and on clean images at its best validation, the epoch of that validation, and
    whether the candidate was chosen.

    Args:
        report: data of the experiment, as `reporting.report.report_data.load_report_data(experiment)` returns them.
            Used is `tables["tuning"]`, if it exists.

    Returns:
        A `Section` with the `id` `tuning`, a `title`, a `lead` (introduction) and `groups` (tables, figures and other
        elements), which `reporting.report.page.page` renders as HTML. None if the experiment file has no entry
        `tuning`.
    """
    if "tuning" not in report.tables:
        return None
    table = report.tables["tuning"]
    lead = (
        "The same number of short runs for every method, compared on the validation split: accuracy in percent at "
        "the best validation of each run. Chosen is the highest under attack, of equals the highest clean one; the "
        "students are trained with it. The test images play no part."
    )
    groups = [
        Group(Comparison(*names).label, [_table(rows, Comparison(*names).label)])
        for names, rows in table.groupby(list(Comparison._fields), sort=False)
    ]
    return Section("tuning", "Tuning", lead, groups)


def _table(rows: pd.DataFrame, title: str) -> Table:
    lines = []
    for row in rows.itertuples():
        lines.append([
            Cell(row.method), Cell(_settings(row.settings)), Cell("chosen" if row.chosen else "", tone="good"),
            _number(row.selection_robust), _number(row.selection_clean),
            Cell("" if pd.isna(row.epoch) else f"{row.epoch:.0f}", None if pd.isna(row.epoch) else row.epoch),
        ])  # fmt: skip
    heads = [Head(name, number=False) for name in ("Method", "Candidate", "Chosen")]
    heads += [Head(name) for name in ("Under attack", "Clean", "Epoch")]
    return Table(f"{title}: every candidate of every method.", [heads], lines, texts=3)


def _settings(text: str) -> str:
    """The values of a candidate, budget and method's own together."""
    values = json.loads(text)
    return ", ".join(f"{key} {value}" for part in values.values() for key, value in part.items())


def _number(value: float) -> Cell:
    """A run without a finite loss has none."""
    return Cell("diverged", -1.0, tone="bad") if pd.isna(value) else Cell(f"{value:.2f}", value)
