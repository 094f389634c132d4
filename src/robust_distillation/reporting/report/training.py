"""The section on training curves."""

from __future__ import annotations

from robust_distillation.reporting.figures.training import training
from robust_distillation.reporting.report.elements import Group, Section
from robust_distillation.reporting.report.report_data import ReportData


def section(report: ReportData) -> Section:
    """Makes the report's section on training curves.

    For each teacher and student it contains a figure of clean and robust accuracy after each epoch, on the images by
    which the checkpoint `best` is chosen: the validation split, or the test split under the protocol `official` (the
    settings of the methods' authors).

    Args:
        report: data of the experiment, as `reporting.report.report_data.load_report_data(experiment)` returns them.
            Used are `curves` (one row per student training and epoch), `spec` (order of the methods) and `experiment`
            (protocol).

    Returns:
        A `Section` with the `id` `training`, a `title`, a `lead` (introduction) and `groups` (tables, figures and other
        elements), which `reporting.report.page.page` renders as HTML.
    """
    split = "test" if report.experiment.selects_on_test else "validation"
    lead = (
        f"Accuracy by epoch on the {split} images that choose the checkpoint best. A robust curve that falls at the "
        "end is robust overfitting; best is then better than last."
    )
    groups = [Group(one.label, [training(report.curves, report.spec, one)]) for one in report.spec.comparisons]
    return Section("training", "Training", lead, groups)
