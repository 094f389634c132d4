"""The figures of outcomes and curves."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from robust_distillation.reporting.figures.attacks import attacks
from robust_distillation.reporting.figures.differences import differences
from robust_distillation.reporting.figures.figure import save
from robust_distillation.reporting.figures.overview import overview
from robust_distillation.reporting.figures.per_class import by_class, per_class
from robust_distillation.reporting.figures.robustness import robustness
from robust_distillation.reporting.figures.trade_off import trade_off
from robust_distillation.reporting.figures.training import training
from robust_distillation.reporting.table_spec import TableSpec
from robust_distillation.settings import ThreatModel
from robust_distillation.statistics.accuracies import accuracies, summary
from robust_distillation.statistics.comparing import Outcomes, comparisons


def draw_all(
    outcomes: pd.DataFrame, curves: pd.DataFrame, eps_curves: pd.DataFrame, spec: TableSpec, classes: tuple[str, ...],
    threat: ThreatModel, folder: Path,
) -> None:  # fmt: skip
    """Draws FOLDER/TEACHER/STUDENT/NAME.{svg,png,pdf} for every comparison.

    NAME is overview, attacks, differences, training, trade-off or per-class, and robustness if there are curves.

    Args:
        outcomes: those of all models.
        curves: training curves of all students, as `reporting.curves.read_curves` returns them.
        eps_curves: accuracy against eps, as `reporting.curves.robustness_curves` returns it; may be empty.
        spec: the comparisons, and the order of methods and metrics.
        classes: names of the classes.
        threat: the threat model.
        folder: of all figures.
    """
    values, table = accuracies(outcomes), summary(outcomes)
    apart = comparisons(Outcomes.of(outcomes), spec.comparisons, spec.methods, [spec.first], [spec.strongest])
    for comparison in spec.comparisons:
        means = by_class(outcomes, spec, classes, comparison)
        by_name = {
            "overview": overview(table, values, spec, comparison),
            "attacks": attacks(table, spec, comparison),
            "differences": differences(comparison.own(apart), spec, comparison),
            "training": training(curves, spec, comparison),
            "trade-off": trade_off(values, spec, comparison),
            "per-class": per_class(means, spec, classes, comparison),
        }
        if len(eps_curves):
            by_name["robustness"] = robustness(eps_curves, spec, comparison, threat)
        for name, figure in by_name.items():
            save(figure, folder / comparison.teacher / comparison.student / name)
