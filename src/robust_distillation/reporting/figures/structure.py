"""Class correlations of the logits, and distances of features under attack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from robust_distillation.columns import METHOD, METRIC, SEED
from robust_distillation.comparison import Comparison
from robust_distillation.evaluation.structure import correlation_distance
from robust_distillation.reporting.figures import charts
from robust_distillation.reporting.figures.dots import mean_and_seeds
from robust_distillation.reporting.figures.figure import Figure, Panel, save
from robust_distillation.reporting.figures.legend import TEACHER, swatches
from robust_distillation.reporting.figures.style import DIVERGING
from robust_distillation.reporting.structure import FEATURES, distances
from robust_distillation.reporting.table_spec import TableSpec

NAMED = 12  # classes at most whose names stand beside a matrix
ACROSS = 5  # matrices in a row of the files
LEVELS = (-1, -0.5, 0, 0.5, 1)
AXES = {
    "feature_distance": "mean |φ(x') − φ(x)| / |φ(x)|",
    "feature_cosine_distance": "mean 1 − cos(φ(x'), φ(x))",
}


def correlations(structures: pd.DataFrame, spec: TableSpec, classes: tuple[str, ...], comparison: Comparison) -> Figure:
    """Draws the class-correlation matrices on clean images: the teacher's, then each method's mean over the seeds.

    Args:
        structures: a row per model and checkpoint, as `reporting.structure.frame` returns them.
        spec: order of the methods, and which checkpoint is the headline's.
        classes: names of the K classes; only up to 12 are written.
        comparison: the students to draw, and their teacher.
    """
    rows = spec.at_headline(structures)
    teacher = [np.array(matrix) for matrix in comparison.teacher_rows(rows)["correlation"]]
    students = comparison.students(rows)
    matrices = [(TEACHER, "", matrix) for matrix in teacher]
    for method in spec.methods:
        seeds = [np.array(matrix) for matrix in students.loc[students[METHOD].eq(method), "correlation"]]
        if seeds:
            away = [correlation_distance(seed, matrix) for matrix in teacher for seed in seeds]
            matrices.append((method, f"{np.mean(away):.3f}" if away else "", np.mean(seeds, axis=0)))
    names = list(classes) if len(classes) <= NAMED else []
    panels = []
    for name, distance, matrix in matrices:
        chart = charts.heat_map(matrix, (-1, 1), DIVERGING, names, names, size=8)
        text = f"Class correlations of {name}" + (f", distance {distance} to the teacher's" if distance else "")
        panels.append(Panel(chart, text, f"{name}\n{distance and f'distance {distance}'}", width=150, height=150))
    caption = (
        f"Correlations over the test images between the logits of each two classes, checkpoint {spec.first}, mean over "
        "the seeds; distance: of the student's matrix from the teacher's."
    )
    return Figure(
        f"{comparison.label}: class correlations", caption, panels, swatches(LEVELS, DIVERGING), columns=ACROSS
    )


def feature_distances(values: pd.DataFrame, spec: TableSpec, comparison: Comparison) -> Figure:
    """Draws by how much PGD-20 moves the features, at the headline's checkpoint.

    Args:
        values: as `reporting.structure.distances` returns them.
        spec: order of the methods, and which checkpoint is the headline's.
        comparison: the students to draw, and their teacher.
    """
    rows = comparison.rows(spec.at_headline(values))
    panels = []
    for metric, axis in AXES.items():
        title = FEATURES[metric]
        frame = mean_and_seeds(rows[rows[METRIC].eq(metric)], title, digits=3)
        if len(frame):
            panels.append(
                Panel(
                    charts.dots(frame, spec.methods, axis, (0, 1.05 * frame["value"].max())),
                    "; ".join(frame.loc[frame[SEED].isna(), "label"]),
                    title,
                    height=charts.height_of(frame[METHOD]),
                )
            )
    caption = (
        f"Distance between the features of an image and of its PGD-20 image, checkpoint {spec.first}; smaller is more "
        "robust. Large: mean over the seeds, bar: one standard deviation; small: each seed."
    )
    return Figure(f"{comparison.label}: features under attack", caption, panels)


def draw_all(structures: pd.DataFrame, spec: TableSpec, classes: tuple[str, ...], folder: Path) -> None:
    """Draws FOLDER/TEACHER/STUDENT/{correlations,feature-distances}.{svg,png,pdf} for every comparison.

    Args:
        structures: as `reporting.structure.read_structures` returns them.
        spec: the comparisons, and the order of the methods.
        classes: names of the classes.
        folder: of all figures.
    """
    values = distances(structures, spec)
    for comparison in spec.comparisons:
        stem = folder / comparison.teacher / comparison.student
        save(correlations(structures, spec, classes, comparison), stem / "correlations")
        save(feature_distances(values, spec, comparison), stem / "feature-distances")
