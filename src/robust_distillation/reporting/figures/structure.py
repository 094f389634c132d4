"""The figures of the class correlations of logits, and of the distances by which an attack moves features."""

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
    """Draws the matrices of correlations between the logits of every two classes: the teacher's, then one for each
    method.

    The correlations are over the clean test images. The matrix of a method is the mean over its seeds. Above it stands
    the distance to the teacher's matrix, the root mean square difference of the entries, as a mean over the seeds.
    There is no distance if the teacher is `none` or an entry that names several teachers.

    Args:
        structures: one row per network (a teacher, or a student of one method and one seed), as
            `reporting.structure.read_structures` returns them. Used columns: `teacher`, `student`, `method`,
            `checkpoint`, and `correlation` (K lists of K numbers in [-1, 1]).
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are `methods` (order of the panels), and the first of `checkpoints`, at
            which students are shown.
        classes: names of the K classes, `experiment.info.classes`. With more than 12 classes they are not written.
        comparison: pair of the names of a teacher and a student network, such as `Comparison(teacher="wide",
            student="small")`. Drawn are the students of this network that were trained with this teacher or by a method
            without a teacher (`teacher` is `none`), and the teacher, whose rows have the student `-`.

    Returns:
        A `figures.figure.Figure` (title, caption, panels with Vega-Altair charts, legend) with one panel for each
        matrix and a legend of the colours, for `figures.figure.save` or as an element of a section of the report.
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
    """Draws how far a PGD-20 attack moves the features of the teacher and of each method.

    Args:
        values: one row for each network and metric, as `reporting.structure.distances` returns them. Used columns:
            `teacher`, `student`, `method`, `seed`, `checkpoint`, `metric` and `value`. Used metrics: `feature_distance`
            (relative Euclidean distance) and `feature_cosine_distance` (1 - cosine), means over the images.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are `methods` (order of the rows), and the first of `checkpoints`, at
            which students are shown.
        comparison: pair of the names of a teacher and a student network, such as `Comparison(teacher="wide",
            student="small")`. Drawn are the students of this network that were trained with this teacher or by a method
            without a teacher (`teacher` is `none`), and the teacher, whose rows have the student `-`.

    Returns:
        A `figures.figure.Figure` (title, caption, panels with Vega-Altair charts, legend) with one panel for each of
        the two metrics, for `figures.figure.save` or as an element of a section of the report. A metric without values
        has no panel. Large marks are means over the seeds, bars are one standard deviation, and small marks are single
        seeds.
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
    """Draws the figures of the structure analysis as FOLDER/TEACHER/STUDENT/NAME.{svg,png,pdf}.

    NAME is correlations (matrices of the correlations between the logits of every two classes) or feature-distances
    (how far a PGD-20 attack moves the features). There is one figure of each name for every teacher and student.

    Args:
        structures: one row per network (a teacher, or a student of one method and one seed), as
            `reporting.structure.read_structures` returns them.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are `comparisons` (pairs of teacher and student), and the order of methods
            and checkpoints.
        classes: names of the K classes, `experiment.info.classes`.
        folder: folder of all figures of the experiment, such as results/digits/figures. Missing folders are created.
    """
    values = distances(structures, spec)
    for comparison in spec.comparisons:
        stem = folder / comparison.teacher / comparison.student
        save(correlations(structures, spec, classes, comparison), stem / "correlations")
        save(feature_distances(values, spec, comparison), stem / "feature-distances")
