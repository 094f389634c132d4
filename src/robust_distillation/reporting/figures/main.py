"""The figures that are drawn for every experiment, from outcomes and training curves."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from robust_distillation.columns import METRIC
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


def draw_all(
    outcomes: pd.DataFrame, curves: pd.DataFrame, eps_curves: pd.DataFrame, compared: pd.DataFrame, spec: TableSpec,
    classes: tuple[str, ...], threat: ThreatModel, folder: Path,
) -> None:  # fmt: skip
    """Draws the figures of every teacher and student as FOLDER/TEACHER/STUDENT/NAME.{svg,png,pdf}.

    NAME is overview, attacks, differences, training, trade-off or per-class, and also robustness if `eps_curves` has
    rows.

    Args:
        outcomes: one row per trained network (a teacher, or a student of one method and one seed), checkpoint and test
            image, as `evaluation.outcomes.read_outcomes` returns them. Columns: `teacher`, `student` (`-` in a row
            about a teacher), `method`, `seed`, `checkpoint`, `index` (position in the test split), `label`,
            `prediction` (class of the clean image), `block` (number of the batch of images that were attacked
            together), `attack_seed` (seed of the attacks on that batch), and one bool column per attack, such as
            `autoattack`: True if the clean and the adversarial image are both classified correctly.
        curves: training curves, one row for each student training and epoch, as `reporting.curves.read_curves` returns
            them.
        eps_curves: accuracy against eps, one row for each network and eps, as `reporting.curves.robustness_curves`
            returns it. It has no rows if the experiment file has no entry `robustness`.
        compared: the content of tables/comparisons.csv, as `reporting.comparisons.tidy` returns it.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are `comparisons` (pairs of teacher and student, one folder for each), and
            the order of methods, checkpoints and metrics.
        classes: names of the K classes, `experiment.info.classes`. The label k is the class `classes[k]`.
        threat: `norm` (`linf` or `l2`) and `eps` (in the pixel range [0, 1], such as 8/255) of the attacks,
            `experiment.threat_model`.
        folder: folder of all figures of the experiment, such as results/digits/figures. Missing folders are created.

    Raises:
        UserError: if the seeds of a method, or a student and its teacher, were not attacked on the same images.
    """
    values, table = accuracies(outcomes), summary(outcomes)
    compared = spec.at_headline(compared[compared[METRIC].eq(spec.strongest)])
    for comparison in spec.comparisons:
        means = by_class(outcomes, spec, classes, comparison)
        by_name = {
            "overview": overview(table, values, spec, comparison),
            "attacks": attacks(table, spec, comparison),
            "differences": differences(comparison.own(compared), spec, comparison),
            "training": training(curves, spec, comparison),
            "trade-off": trade_off(values, spec, comparison),
            "per-class": per_class(means, spec, classes, comparison),
        }
        if len(eps_curves):
            by_name["robustness"] = robustness(eps_curves, spec, comparison, threat)
        for name, figure in by_name.items():
            save(figure, folder / comparison.teacher / comparison.student / name)
