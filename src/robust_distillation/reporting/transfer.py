"""Transfer across tasks: what attacks on the transferred networks left, as tables and pictures.

The outcomes are those of `evaluation.attack.attack_run` on the target's test split, with the keys of the networks that
were transferred; a teacher itself is transferred too, as student `-`.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_distillation.columns import ITSELF, NO_TEACHER
from robust_distillation.files import write_text
from robust_distillation.reporting import formats
from robust_distillation.reporting.style import ROW, STYLE, colours, dots, save
from robust_distillation.reporting.tables import TITLES, Matrix, at_headline, metric_title
from robust_distillation.statistics.accuracies import accuracies, summary

KEYS = ["teacher", "student", "method", "checkpoint", "metric"]
COLUMNS = ["target", *KEYS[:3], "protocol", *KEYS[3:], "n_seeds", "n_images", "mean", "sd", "ci_low", "ci_high"]


def tidy(outcomes: pd.DataFrame, matrix: Matrix, target: str) -> pd.DataFrame:
    """transfer-TARGET.csv: one row per teacher, student, method, checkpoint and metric, in percent, as in the main
    table; teachers come first, as student `-`, and networks that had no teacher stand once, under `none`."""
    table = summary(outcomes).assign(target=target, protocol=matrix.protocol)
    return formats.ordered(table, matrix, matrix.metrics)[COLUMNS].round(4)


def caption(table: pd.DataFrame, matrix: Matrix) -> str:
    return (
        f"{matrix.experiment}: transfer to {table['target'].iloc[0]}, a linear head on the frozen backbone, attacked "
        f"end to end. Accuracy in percent on {table['n_images'].iloc[0]} test images of the target, {matrix.threat}, "
        f"{matrix.protocol} protocol; {formats.over_seeds(table)}. {formats.checkpoints(table, matrix)}."
    )


def accuracy(outcomes: pd.DataFrame, matrix: Matrix, target: str, teacher: str, student: str) -> Figure:
    """Clean and robust accuracy on the target at the first checkpoint: a small dot per seed, a large one for their
    mean, bars of one standard deviation."""
    values = accuracies(at_headline(outcomes, matrix))
    own = values[values["student"].eq(student) & values["teacher"].isin([teacher, NO_TEACHER])]
    itself = values[values["student"].eq(ITSELF) & values["teacher"].eq(teacher)]
    methods = [method for method in matrix.methods if method in set(own["method"])]
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 1.3 + ROW * (1 + len(methods))), sharey=True, layout="constrained")
    for axis, metric in zip(axes, ("clean", matrix.metrics[-1]), strict=True):
        of = own[own["metric"].eq(metric)]
        seeds = {method: of.loc[of["method"].eq(method), "value"].tolist() for method in methods}
        star = itself.loc[itself["metric"].eq(metric), "value"]
        dots(axis, seeds, colours(matrix.methods), star.iloc[0] if len(star) else None)
        axis.set_xlabel("accuracy (%)")
        axis.set_title(metric_title(metric), fontsize=9)
    title = f"Transfer to {target} ({matrix.checkpoints[0]}): student {student}, teacher {teacher}"
    figure.suptitle(title, fontsize=10)
    return figure


def write_tables(outcomes: pd.DataFrame, matrix: Matrix, target: str, folder: Path) -> None:
    """FOLDER/transfer-TARGET.{csv,md,tex}."""
    table = tidy(outcomes, matrix, target)
    text, blocks = caption(table, matrix), formats.blocks(table, matrix, matrix.metrics, "{:.2f}".format)
    write_text(folder / f"transfer-{target}.csv", table.to_csv(index=False))
    write_text(folder / f"transfer-{target}.md", formats.markdown(text, blocks, TITLES))
    write_text(folder / f"transfer-{target}.tex", formats.latex(text, blocks, TITLES))


def draw_all(outcomes: pd.DataFrame, matrix: Matrix, target: str, folder: Path) -> None:
    """FOLDER/TEACHER/STUDENT/transfer-TARGET.{png,pdf}."""
    with plt.rc_context(STYLE):
        for teacher, student in matrix.pairs:
            figure = accuracy(outcomes, matrix, target, teacher, student)
            save(figure, folder / teacher / student / f"transfer-{target}")
