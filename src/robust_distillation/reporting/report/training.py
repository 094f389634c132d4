"""The section on training curves."""

from __future__ import annotations

from robust_distillation.reporting.figures.training import training
from robust_distillation.reporting.report.elements import Group, Section
from robust_distillation.reporting.report.report_data import ReportData


def section(report: ReportData) -> Section:
    """Makes the section on training curves.

    The section has the id `training`. For each student and teacher it contains a figure of clean and robust accuracy
    after each epoch, on the images by which the checkpoint `best` is chosen.

    Args:
        report: contents of the report, see `load_report_data`. Its `curves`, `spec` and `experiment` are used.

    Returns:
        The section.
    """
    split = "test" if report.experiment.selects_on_test else "validation"
    lead = (
        f"Accuracy by epoch on the {split} images that choose the checkpoint best. A robust curve that falls at the "
        "end is robust overfitting; best is then better than last."
    )
    groups = [Group(one.label, [training(report.curves, report.spec, one)]) for one in report.spec.comparisons]
    return Section("training", "Training", lead, groups)
