"""Structural knowledge and robust features: what `evaluation.structure` measured, as tables and pictures.

A structure is the dict of `evaluation.structure.structure_of` with the keys of outcomes beside it: teacher, student
(`-` for a teacher itself), method, seed, checkpoint.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from robust_distillation.columns import ITSELF, NO_TEACHER
from robust_distillation.evaluation.structure import correlation_distance
from robust_distillation.files import write_text
from robust_distillation.reporting import formats
from robust_distillation.reporting.style import ROW, STYLE, colours, dots, save, wrapped
from robust_distillation.reporting.tables import Matrix
from robust_distillation.statistics.accuracies import spread

KEYS = ["teacher", "student", "method", "checkpoint", "metric"]
COLUMNS = [*KEYS[:3], "protocol", *KEYS[3:], "n_seeds", "n_images", "mean", "sd", "ci_low", "ci_high"]
FEATURE = {"feature_distance": "Feature distance", "feature_cosine_distance": "Feature cosine distance"}
TITLES = {
    "correlation_distance": "Correlation distance",
    "adversarial_correlation_distance": "Correlation distance on x'",
    **FEATURE,
}
LABELLED = 12  # classes at most, for their names to be readable beside a small picture
ACROSS = 6  # pictures


def distances(structures: list[dict[str, Any]], matrix: Matrix) -> pd.DataFrame:
    """One row per model, checkpoint and metric: KEYS, seed, n_images, value.

    `teacher` is the one that a student is compared with: a student that had none stands under the teacher of every
    pair. adversarial_correlation_distance compares the two matrices that student and teacher each show on their own x'.
    A teacher itself, student `-`, has feature distances only.
    """
    teachers = {found["teacher"]: found for found in structures if found["student"] == ITSELF}
    rows = []
    for teacher in dict.fromkeys(teacher for teacher, _ in matrix.pairs if teacher in teachers):
        rows += _rows(teachers[teacher], teacher, {metric: teachers[teacher][metric] for metric in FEATURE})
    for teacher, student in matrix.pairs:
        for found in _of_pair(structures, teacher, student):
            kinds = ("correlation", "adversarial_correlation") if teacher in teachers else ()  # nothing to compare with
            apart = {f"{kind}_distance": correlation_distance(found[kind], teachers[teacher][kind]) for kind in kinds}
            rows += _rows(found, teacher, apart | {metric: found[metric] for metric in FEATURE})
    return pd.DataFrame(rows)


def _of_pair(structures: list[dict[str, Any]], teacher: str, student: str) -> list[dict[str, Any]]:
    return [found for found in structures if found["student"] == student and found["teacher"] in (teacher, NO_TEACHER)]


def _rows(found: dict[str, Any], teacher: str, values: dict[str, float | None]) -> list[dict[str, Any]]:
    keys = {key: found[key] for key in ("student", "method", "checkpoint", "seed")} | {"teacher": teacher}
    return [
        {**keys, "n_images": found["images"], "metric": metric, "value": value}
        for metric, value in values.items()
        if value is not None  # a network without features: see evaluation.structure
    ]


def tidy(structures: list[dict[str, Any]], matrix: Matrix) -> pd.DataFrame:
    """structure.csv: one row per teacher, student, method, checkpoint and metric, over the seeds as in the main table
    (mean, sample standard deviation, 95 % interval of Student's t); teachers come first, as student `-`. For `teacher`
    and the metrics see `distances`."""
    rows = []
    for keys, group in distances(structures, matrix).groupby(KEYS, sort=False):
        named = dict(zip(KEYS, keys, strict=True))
        rows.append({**named, "n_images": group["n_images"].iloc[0], **spread(group["value"])})
    table = pd.DataFrame(rows).assign(protocol=matrix.protocol)
    return formats.ordered(table, matrix, TITLES)[COLUMNS].round(6)


def caption(table: pd.DataFrame, matrix: Matrix) -> str:
    images, seeds = table["n_images"].iloc[0], formats.over_seeds(table)
    return (
        f"{matrix.experiment}: structural knowledge and robust features on {images} test images, {matrix.threat}, "
        f"{matrix.protocol} protocol; {seeds}. {formats.checkpoints(table, matrix)}. x' is PGD-20 on the model itself. "
        "Correlation distance, from 0 to 1.41: root mean square difference between the class-correlation matrices of "
        "the student's and the teacher's logits, on x' each on its own; smaller is closer to the teacher. Feature "
        "distance: mean of |φ(x') − φ(x)| / |φ(x)|, and of 1 − cos between the two; smaller is more robust."
    )


def _blocks(table: pd.DataFrame, matrix: Matrix) -> list[formats.Block]:
    return formats.blocks(table, matrix, list(TITLES), "{:.3f}".format)


def correlations(
    structures: list[dict[str, Any]], matrix: Matrix, classes: tuple[str, ...], teacher: str, student: str
) -> Figure:
    """Class-correlation matrices of the logits on clean images, mean over the seeds at the first checkpoint: the
    teacher's, then each method's with its distance (mean over the seeds) to the teacher's."""
    itself = [found for found in structures if found["student"] == ITSELF and found["teacher"] == teacher]
    own = _at_headline(_of_pair(structures, teacher, student), matrix)
    pictures = [("teacher", np.array(found["correlation"])) for found in itself]
    for method in matrix.methods:
        seeds = [found["correlation"] for found in own if found["method"] == method]
        if seeds:
            apart = [correlation_distance(seed, found["correlation"]) for found in itself for seed in seeds]
            label = f"\ndistance {np.mean(apart):.3f}" if apart else ""
            pictures.append((f"{wrapped(method, 20)}{label}", np.mean(seeds, axis=0)))
    names = list(classes) if len(classes) <= LABELLED else []
    longest = max(map(len, names), default=0)
    down = math.ceil(len(pictures) / ACROSS)
    across = math.ceil(len(pictures) / down)
    size = (1.55 * across + 0.9 + 0.06 * longest, 2.0 * down + 0.7 + 0.06 * longest)
    figure, axes = plt.subplots(down, across, figsize=size, squeeze=False, layout="compressed")
    for place, axis in enumerate(axes.flat):
        if place >= len(pictures):
            axis.set_axis_off()
            continue
        title, values = pictures[place]
        image = axis.imshow(values, vmin=-1, vmax=1, cmap="RdBu_r", interpolation="nearest")
        axis.set_title(title, fontsize=8)
        left, bottom, none = place % across == 0, place // across == down - 1, [""] * len(names)
        axis.set_xticks(range(len(names)), names if bottom else none, fontsize=6, rotation=90 if longest > 2 else 0)
        axis.set_yticks(range(len(names)), names if left else none, fontsize=6)
        axis.tick_params(length=0)
        axis.grid(False)
        axis.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.75, aspect=15 * down, ticks=[-1, -0.5, 0, 0.5, 1])
    bar.set_label("correlation", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.get_layout_engine().set(h_pad=0.07)
    title = f"Class correlations of the logits ({matrix.checkpoints[0]})"
    figure.suptitle(f"{title}\nstudent {student}, teacher {teacher}", fontsize=10)
    return figure


def feature_distances(structures: list[dict[str, Any]], matrix: Matrix, teacher: str, student: str) -> Figure:
    """How far PGD-20 moves the features, at the first checkpoint: a small dot per seed, a large one for their mean,
    bars of one standard deviation."""
    values = distances(structures, matrix)
    values = values[values["teacher"].eq(teacher)]
    itself, own = values[values["student"].eq(ITSELF)], values[values["student"].eq(student)]
    own = own[own["checkpoint"].eq(matrix.checkpoints[0])]
    methods = [method for method in matrix.methods if method in set(own["method"])]
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 1.3 + ROW * (1 + len(methods))), sharey=True, layout="constrained")
    labels = {
        "feature_distance": "mean |φ(x') − φ(x)| / |φ(x)|",
        "feature_cosine_distance": "mean 1 − cos(φ(x'), φ(x))",
    }
    for axis, (metric, label) in zip(axes, labels.items(), strict=True):
        of = own[own["metric"].eq(metric)]
        seeds = {method: of.loc[of["method"].eq(method), "value"].tolist() for method in methods}
        star = itself.loc[itself["metric"].eq(metric), "value"]
        dots(axis, seeds, colours(matrix.methods), star.iloc[0] if len(star) else None)
        axis.set(xlabel=label, xlim=(0, 1.04 * axis.get_xlim()[1]))
        axis.set_title(FEATURE[metric], fontsize=9)
    title = (
        f"Features under PGD-20 ({matrix.checkpoints[0]}; smaller is more robust): student {student}, teacher {teacher}"
    )
    figure.suptitle(title, fontsize=10)
    return figure


def _at_headline(structures: list[dict[str, Any]], matrix: Matrix) -> list[dict[str, Any]]:
    return [found for found in structures if found["checkpoint"] == matrix.checkpoints[0]]


def write_tables(structures: list[dict[str, Any]], matrix: Matrix, folder: Path) -> None:
    """FOLDER/structure.{csv,md,tex}."""
    table = tidy(structures, matrix)
    text, blocks = caption(table, matrix), _blocks(table, matrix)
    write_text(folder / "structure.csv", table.to_csv(index=False))
    write_text(folder / "structure.md", formats.markdown(text, blocks, TITLES))
    write_text(folder / "structure.tex", formats.latex(text, blocks, TITLES))


def draw_all(structures: list[dict[str, Any]], matrix: Matrix, classes: tuple[str, ...], folder: Path) -> None:
    """FOLDER/TEACHER/STUDENT/{correlations,feature-distances}.{png,pdf}."""
    with plt.rc_context(STYLE):
        for teacher, student in matrix.pairs:
            stem = folder / teacher / student
            save(correlations(structures, matrix, classes, teacher, student), stem / "correlations")
            save(feature_distances(structures, matrix, teacher, student), stem / "feature-distances")
