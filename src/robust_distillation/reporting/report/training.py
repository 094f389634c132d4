"""The section on training curves."""

from __future__ import annotations

from robust_distillation.reporting.figures.training import training
from robust_distillation.reporting.report.elements import Group, Section
from robust_distillation.reporting.report.report_data import ReportData


def section(report: ReportData) -> Section:
    """Returns the training curves of every comparison."""
    split = "test" if report.experiment.selects_on_test else "validation"
    lead = (
        f"Accuracy by epoch on the {split} images that choose the checkpoint best. A robust curve that falls at the "
        "end is robust overfitting; best is then better than last."
    )
    groups = [Group(one.label, [training(report.curves, report.spec, one)]) for one in report.spec.comparisons]
    return Section("training", "Training", lead, groups)
