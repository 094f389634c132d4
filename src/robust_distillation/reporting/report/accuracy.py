"""The sections on the trade-off of clean and robust accuracy, and on robustness by class."""

from __future__ import annotations

import pandas as pd

from robust_distillation.comparison import Comparison
from robust_distillation.reporting.figures.per_class import by_class, per_class
from robust_distillation.reporting.figures.trade_off import trade_off
from robust_distillation.reporting.report.elements import Cell, Group, Head, Section, Table
from robust_distillation.reporting.report.report_data import ReportData
from robust_distillation.reporting.table_spec import metric_title

WORST = 5  # classes listed per method


def trade_offs(report: ReportData) -> Section:
    """Makes the report's section on clean against robust accuracy, with one figure for each teacher and student.

    A figure shows clean accuracy (horizontal) against accuracy under the strongest attack, the last of
    `evaluation.attacks` (vertical), of the teacher and of each distillation method, as
    `reporting.figures.trade_off.trade_off` draws it.

    Args:
        report: data of the experiment, as `reporting.report.report_data.load_report_data(experiment)` returns them.
            Used are `values` (accuracy of each seed) and `spec` (order of the methods).

    Returns:
        A `Section` with the `id` `trade-off`, a `title`, a `lead` (introduction) and `groups` (tables, figures and
        other elements), which `reporting.report.page.page` renders as HTML.
    """
    lead = (
        "Clean accuracy against that under the strongest attack: what is further up and to the right is better in "
        "both. Beside all models the robust ones closer: those that keep at least half of the best one's robustness."
    )
    groups = [Group(one.label, [trade_off(report.values, report.spec, one)]) for one in report.spec.comparisons]
    return Section("trade-off", "Clean against robust accuracy", lead, groups)


def classes(report: ReportData) -> Section:
    """Makes the report's section on the robust accuracy of each class.

    For each teacher and student it contains a heat map of the accuracy with a row for the teacher and each distillation
    method and a column for each class, and a table with the five worst classes of each method (all classes if there are
    fewer). The accuracy is that under the strongest attack (the last of `evaluation.attacks` in the experiment file) at
    the first of `evaluation.checkpoints`, over the images of all seeds.

    Args:
        report: data of the experiment, as `reporting.report.report_data.load_report_data(experiment)` returns them.
            Used are `outcomes` (one row per network, checkpoint and test image: correct or not), `spec` (order of the
            methods) and `experiment` (names of the classes).

    Returns:
        A `Section` with the `id` `classes`, a `title`, a `lead` (introduction) and `groups` (tables, figures and other
        elements), which `reporting.report.page.page` renders as HTML.
    """
    lead = (
        f"{metric_title(report.spec.strongest)} accuracy of each class, mean over the seeds, at the checkpoint "
        f"{report.spec.first}. A mean can hide a class that is defended hardly at all."
    )
    groups = [Group(one.label, _classes(report, one)) for one in report.spec.comparisons]
    return Section("classes", "Robustness by class", lead, groups)


def _classes(report: ReportData, comparison: Comparison) -> list:
    names = report.experiment.info.classes
    means = by_class(report.outcomes, report.spec, names, comparison)
    return [per_class(means, report.spec, names, comparison), _worst(means, names, comparison.label)]


def _worst(means: pd.DataFrame, names: tuple[str, ...], label: str) -> Table:
    count = min(WORST, len(names))
    rows = []
    for method, values in means.iterrows():
        ranked = values.dropna().sort_values(kind="stable").iloc[:count]
        cells = [Cell(f"{value:.0f} ({names[k]})", value, share=1 - value / 100) for k, value in ranked.items()]
        rows.append([Cell(method), *cells, *[Cell("")] * (count - len(cells))])
    heads = [Head("Method", number=False), Head("Worst class")]
    heads += [Head(f"{rank}. worst") for rank in range(2, count + 1)]
    caption = (
        f"{label}: the worst classes of each method, robust accuracy in percent; the deeper the colour the weaker."
    )
    return Table(caption, [heads], rows)
