"""Makes the table of class correlations and feature distances, from the files that the step `structure` wrote."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from robust_distillation.columns import (
    CELL,
    CHECKPOINT,
    METHOD,
    METRIC,
    PROTOCOL,
    ROW_KEYS,
    SEED,
    SPREAD,
    STUDENT,
    TEACHER,
)
from robust_distillation.comparison import Comparison
from robust_distillation.evaluation.structure import correlation_distance
from robust_distillation.files import read_json
from robust_distillation.reporting import formats
from robust_distillation.reporting.table_spec import TableSpec
from robust_distillation.statistics.accuracies import spread

COLUMNS = [*ROW_KEYS, *SPREAD]
FEATURES = {"feature_distance": "Feature distance", "feature_cosine_distance": "Feature cosine distance"}
TITLES = {
    "correlation_distance": "Correlation distance",
    "adversarial_correlation_distance": "Correlation distance on x'",
    **FEATURES,
}


def read_structures(files: Iterable[Path]) -> pd.DataFrame:
    """Reads the measurements of the step `structure` (class correlations and feature distances) into one table.

    Args:
        files: paths of the JSON files, one per trained network (a teacher, or a student of one method and one seed),
            such as results/digits/structure/students/wide/small/rslad/seed-0.json.

    Returns:
        One row per file, in their order. Columns: `teacher`, `student` (`-` in a row about a teacher), `method`,
        `seed`, `checkpoint`, and what `evaluation.structure.structure_of` measured: `images` (number of test images),
        `correlation` and `adversarial_correlation` (K lists of K numbers: Pearson correlations between the logits of
        every two of K classes, on clean and on PGD-20 images), `feature_distance` and `feature_cosine_distance` (means
        over the images, missing if not measurable) and `feature_images` (number of images in these two means).

    Raises:
        CorruptFileError: if a file is not JSON.
        FileNotFoundError: if a file is missing.
    """
    return pd.DataFrame([read_json(file) for file in files])


def distances(structures: pd.DataFrame, spec: TableSpec) -> pd.DataFrame:
    """Computes how far the class correlations of each student are from those of its teacher, and collects feature
    distances.

    The class correlations of a network are the Pearson correlations, over the test images, between its logits of every
    two classes: a matrix [K,K] for K classes.

    A student that was trained without a teacher is compared with the teacher of every pair in `spec.comparisons` that
    has this student. If a teacher has no measurements, because it is `none` or several teachers under one name, its
    students have feature distances only.

    Args:
        structures: one row per network (a teacher, or a student of one method and one seed), as
            `reporting.structure.read_structures` returns them. Used columns: `teacher`, `student`, `method`, `seed`,
            `checkpoint`, `images`, `correlation`, `adversarial_correlation`, `feature_distance` and
            `feature_cosine_distance`.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are its `comparisons` (pairs of teacher and student).

    Returns:
        One row per network, teacher and metric; the rows about teachers (student `-`) come first. Columns: `student`,
        `method`, `checkpoint`, `seed`, `teacher`, `n_images`, `metric` and `value`. Missing values have no row. The
        metrics are:

        - `correlation_distance`: root mean square difference between the entries of the student's and the teacher's
          matrix of class correlations on clean images, in [0, 1.41]. Students only.
        - `adversarial_correlation_distance`: the same distance on PGD-20 images, where each network has its own attack.
        - `feature_distance`: mean of ||phi(x') - phi(x)|| / ||phi(x)||, with the network's features phi, clean images x
          and PGD-20 images x'.
        - `feature_cosine_distance`: mean of 1 - cos(phi(x'), phi(x)).
    """
    rows = []
    for teacher in dict.fromkeys(comparison.teacher for comparison in spec.comparisons):
        for own in _records(Comparison(teacher, "").teacher_rows(structures)):
            rows += _rows(own, teacher, {metric: own[metric] for metric in FEATURES})
    for comparison in spec.comparisons:
        teachers = _records(comparison.teacher_rows(structures))  # one, or none to compare with
        for own in _records(comparison.students(structures)):
            values = {
                f"{kind}_distance": correlation_distance(own[kind], teacher[kind])
                for teacher in teachers
                for kind in ("correlation", "adversarial_correlation")
            }
            rows += _rows(own, comparison.teacher, values | {metric: own[metric] for metric in FEATURES})
    return pd.DataFrame(rows)


def _records(structures: pd.DataFrame) -> list[dict[str, Any]]:
    return structures.to_dict("records")


def _rows(own: dict[str, Any], teacher: str, values: dict[str, float]) -> list[dict[str, Any]]:
    keys = {key: own[key] for key in (STUDENT, METHOD, CHECKPOINT, SEED)} | {TEACHER: teacher}
    return [
        {**keys, "n_images": own["images"], METRIC: metric, "value": value}
        for metric, value in values.items()
        if not pd.isna(value)  # a network without features: see evaluation.structure
    ]


def tidy(structures: pd.DataFrame, spec: TableSpec) -> pd.DataFrame:
    """Computes the mean over the seeds of each distance of the structure analysis, with standard deviation and 95 %
    interval: Student's t over the S seeds, with S - 1 degrees of freedom.

    Args:
        structures: one row per network (a teacher, or a student of one method and one seed), as
            `reporting.structure.read_structures` returns them. Used columns: `teacher`, `student`, `method`, `seed`,
            `checkpoint`, `images`, `correlation`, `adversarial_correlation`, `feature_distance` and
            `feature_cosine_distance`.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are `comparisons` (pairs of teacher and student), `protocol`, and the
            order of the names.

    Returns:
        The content of tables/structure.csv: one row per teacher, student, method, checkpoint and metric. The metrics
        are `correlation_distance` and `adversarial_correlation_distance` (of the student from the teacher),
        `feature_distance` and `feature_cosine_distance` (of attacked from clean features), as
        `reporting.structure.distances` defines them. The rows about teachers (student `-`) come first. Columns:
        `teacher`, `student`, `method`, `protocol`, `checkpoint`, `metric`, `n_seeds`, `n_images`, `mean`, `sd`,
        `ci_low` and `ci_high`. The last three are NaN for one seed. Numbers have 6 decimals.
    """
    rows = []
    for keys, group in distances(structures, spec).groupby(CELL, sort=False):
        named = dict(zip(CELL, keys, strict=True))
        rows.append({**named, "n_images": group["n_images"].iloc[0], **spread(group["value"])})
    table = pd.DataFrame(rows).assign(**{PROTOCOL: spec.protocol})
    return spec.ordered(table, TITLES)[COLUMNS].round(6)


def caption(table: pd.DataFrame, spec: TableSpec) -> str:
    """Returns the caption of the table of distances as plain text, for its Markdown and LaTeX files. It defines each
    distance.

    Args:
        table: the content of structure.csv, as `reporting.structure.tidy` returns it. Used columns: `student`,
            `checkpoint`, `n_seeds` and `n_images`.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are the name of the experiment, `threat` (such as `linf eps 0.15`),
            `protocol` and `selection` (how `best` was chosen).
    """
    images, seeds = table["n_images"].iloc[0], formats.aggregate_label(table)
    return (
        f"{spec.experiment}: structural knowledge and robust features on {images} test images, {spec.threat}, "
        f"{spec.protocol} protocol; {seeds}. {formats.checkpoints_label(table, spec)}. x' is PGD-20 on the model "
        "itself. Correlation distance, from 0 to 1.41: root mean square difference between the class-correlation "
        "matrices of the student's and the teacher's logits, on x' each on its own; smaller is closer to the teacher. "
        "Feature distance: mean of |φ(x') − φ(x)| / |φ(x)|, and of 1 − cos between the two; smaller is more robust."
    )


def write_tables(structures: pd.DataFrame, spec: TableSpec, folder: Path) -> None:
    """Writes the mean distances over the seeds as FOLDER/structure.csv, FOLDER/structure.md and FOLDER/structure.tex.

    They are the distances between the class correlations of student and teacher (Pearson correlations between the
    logits of every two classes), and the distances by which a PGD-20 attack moves the features of a network.

    Args:
        structures: one row per network (a teacher, or a student of one method and one seed), as
            `reporting.structure.read_structures` returns them. Used columns: `teacher`, `student`, `method`, `seed`,
            `checkpoint`, `images`, `correlation`, `adversarial_correlation`, `feature_distance` and
            `feature_cosine_distance`.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are `comparisons` (pairs of teacher and student), the order of the names,
            and the texts of the caption.
        folder: folder of the tables, such as results/digits/tables. It is created if it does not exist.
    """
    table = tidy(structures, spec)
    text, blocks = caption(table, spec), formats.blocks(table, spec, list(TITLES), "{:.3f}".format)
    markdown, latex = formats.markdown(text, blocks, TITLES), formats.latex(text, blocks, TITLES)
    formats.write(folder / "structure", table, markdown, latex)
