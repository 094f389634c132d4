"""The figures, each as PNG for screens and PDF for papers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_distillation.columns import ITSELF, NO_TEACHER
from robust_distillation.reporting.style import STYLE, colours, save
from robust_distillation.reporting.tables import Matrix, at_headline, metric_title
from robust_distillation.statistics.accuracies import accuracies


def training_curves(curves: pd.DataFrame, matrix: Matrix, teacher: str, student: str) -> Figure:
    """Accuracy on the images that choose `best` by epoch, mean over seeds with the range shaded.

    curves: columns teacher, student, method, seed, epoch, selection_clean, selection_robust (fractions).
    """
    shown = curves[curves["student"].eq(student) & curves["teacher"].isin([teacher, NO_TEACHER])]
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.2), sharex=True, layout="constrained")
    split = "validation" if matrix.protocol == "controlled" else "test"
    titles = {"selection_clean": "Clean", "selection_robust": "Under attack"}
    for axis, (column, title) in zip(axes, titles.items(), strict=True):
        for method, colour in colours(matrix.methods).items():
            epochs = 100 * shown[shown["method"].eq(method)].dropna(subset=[column]).set_index("epoch")[column]
            if epochs.empty:
                continue
            by_epoch = epochs.groupby("epoch")
            axis.plot(by_epoch.mean(), color=colour, label=method, linewidth=1.4, marker="o", markersize=2.5)
            axis.fill_between(
                by_epoch.min().index, by_epoch.min(), by_epoch.max(), color=colour, alpha=0.15, linewidth=0
            )
        axis.set(xlabel="epoch", ylabel=f"{split} accuracy (%)", ylim=(0, 100))
        axis.set_title(title, fontsize=9)
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(f"Training curves: student {student}, teacher {teacher}", fontsize=10)
    return figure


def trade_off(outcomes: pd.DataFrame, matrix: Matrix, teacher: str, student: str) -> Figure:
    """Clean against robust accuracy on the test images: a small dot per seed, a large one for their mean. On the left
    all, on the right the students that keep at least half of the best one's robust accuracy."""
    metric, checkpoint = matrix.metrics[-1], matrix.checkpoints[0]
    wide = accuracies(at_headline(outcomes, matrix))
    wide = wide.pivot(index=["teacher", "student", "method", "seed"], columns="metric", values="value").reset_index()
    own = wide[wide["student"].eq(student) & wide["teacher"].isin([teacher, NO_TEACHER])]
    itself = wide[wide["student"].eq(ITSELF) & wide["teacher"].eq(teacher)]
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.4), layout="constrained")
    for axis in axes:
        for method, colour in colours(matrix.methods).items():
            points = own[own["method"].eq(method)]
            if points.empty:
                continue
            axis.scatter(points["clean"], points[metric], s=16, color=colour, alpha=0.5, linewidths=0)
            means = points["clean"].mean(), points[metric].mean()
            axis.scatter(*means, s=70, color=colour, label=method, edgecolors="white", zorder=3)
        axis.scatter(itself["clean"], itself[metric], s=110, color="black", marker="*", label="teacher")
        axis.set(xlabel="clean accuracy (%)", ylabel=f"{metric_title(metric)} accuracy (%)")
    means = own.groupby("method")[metric].transform("mean")
    near = own[means >= means.max() / 2]
    axes[1].set_xlim(near["clean"].min() - 1, near["clean"].max() + 1)
    axes[1].set_ylim(near[metric].min() - 1, near[metric].max() + 1)
    axes[0].set_title("all", fontsize=9)
    axes[1].set_title("the robust students, closer", fontsize=9)
    axes[1].legend(*axes[0].get_legend_handles_labels(), loc="center left", bbox_to_anchor=(1, 0.5))
    title = f"Clean against robust accuracy ({checkpoint}): student {student}, teacher {teacher}\n{matrix.attacked}"
    figure.suptitle(title, fontsize=10)
    return figure


def per_class(outcomes: pd.DataFrame, matrix: Matrix, classes: tuple[str, ...], teacher: str, student: str) -> Figure:
    """Robust accuracy of each class, mean over seeds: a method a row, a class a column, the worst class last."""
    metric = matrix.metrics[-1]
    shown = at_headline(outcomes, matrix)
    shown = shown[shown["student"].isin([student, ITSELF]) & shown["teacher"].isin([teacher, NO_TEACHER])]
    names = shown["method"].where(shown["student"].ne(ITSELF), ITSELF)
    means = 100 * shown.groupby([names, "label"])[metric].mean().unstack().reindex(columns=range(len(classes)))
    means = means.reindex([name for name in [ITSELF, *matrix.methods] if name in means.index])
    means["worst"] = means.min(axis=1)
    figure, axis = plt.subplots(figsize=(1.8 + 0.55 * means.shape[1], 0.9 + 0.34 * len(means)))
    image = axis.imshow(means.to_numpy(), vmin=0, vmax=100, cmap="viridis", aspect="auto")
    for (row, column), value in np.ndenumerate(means.to_numpy()):
        if not np.isnan(value):
            axis.text(column, row, f"{value:.0f}", ha="center", va="center", color="black" if value > 55 else "white")
    long = max(map(len, classes)) > 3
    axis.set_xticks(
        range(means.shape[1]), [*classes, "worst"], rotation=45 if long else 0, ha="right" if long else "center"
    )
    axis.set_yticks(range(len(means)), ["teacher" if name == ITSELF else name for name in means.index])
    axis.axvline(len(classes) - 0.5, color="white", linewidth=3)
    axis.grid(False)
    title = f"{metric_title(metric)} accuracy by class (%): student {student}, teacher {teacher}\n{matrix.attacked}"
    axis.set_title(title, fontsize=9)
    figure.colorbar(image, ax=axis, fraction=0.03, pad=0.02)
    return figure


def draw_all(
    outcomes: pd.DataFrame, curves: pd.DataFrame, matrix: Matrix, classes: tuple[str, ...], folder: Path
) -> None:
    """FOLDER/TEACHER/STUDENT/{training,trade-off,per-class}.{png,pdf}."""
    with plt.rc_context(STYLE):
        for teacher, student in matrix.pairs:
            stem = folder / teacher / student
            save(training_curves(curves, matrix, teacher, student), stem / "training")
            save(trade_off(outcomes, matrix, teacher, student), stem / "trade-off")
            save(per_class(outcomes, matrix, classes, teacher, student), stem / "per-class")
