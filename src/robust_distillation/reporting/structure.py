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
    """Reads the measurements of the step `structure`.

    Args:
        files: the JSON files, one per model.

    Returns:
        A row per model. Columns: `teacher`, `student` (`-` for a teacher's own row), `method`, `seed`, `checkpoint`,
        and the values of `evaluation.structure.structure_of`: `images`, `correlation`, `adversarial_correlation` (K
        lists of K numbers), `feature_distance`, `feature_cosine_distance` and `feature_images`.
    """
    return pd.DataFrame([read_json(file) for file in files])


def distances(structures: pd.DataFrame, spec: TableSpec) -> pd.DataFrame:
    """Computes the distances between student and teacher, and collects the feature distances of both.

    A student is compared with the teacher of each of its comparisons. So one trained without a teacher has rows under
    each of these teachers. If a comparison has no single teacher, the student has feature distances only, as a teacher
    has.

    Args:
        structures: as `read_structures` returns them: a row per model with the columns `teacher`, `student`, `method`,
            `seed`, `checkpoint`, `images`, `correlation`, `adversarial_correlation`, `feature_distance` and
            `feature_cosine_distance`.
        spec: the comparisons (student and teacher).

    Returns:
        A row per model, teacher and metric, teachers' own rows (student `-`) first. Columns: `student`, `method`,
        `checkpoint`, `seed`, `teacher`, `n_images`, `metric` and `value`. Metrics: `correlation_distance` and
        `adversarial_correlation_distance`, the root mean square difference of the class correlations of the student's
        and the teacher's logits on clean images, and on images attacked with PGD-20, each network on its own;
        `feature_distance` and `feature_cosine_distance`, how far PGD-20 moves a network's features. Values that were
        not measured have no row.
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
    """Computes the mean over the seeds of each distance, with standard deviation and 95 % interval (Student's t).

    Args:
        structures: as `read_structures` returns them: a row per model with the columns `teacher`, `student`, `method`,
            `seed`, `checkpoint`, `images`, `correlation`, `adversarial_correlation`, `feature_distance` and
            `feature_cosine_distance`.
        spec: the comparisons (student and teacher), and the order of the rows.

    Returns:
        The content of structure.csv: a row per teacher, student, method, checkpoint and metric (the metrics of
        `distances`), teachers' own rows (student `-`) first. Columns: `teacher`, `student`, `method`, `protocol`,
        `checkpoint`, `metric`, `n_seeds`, `n_images`, `mean`, `sd`, `ci_low` and `ci_high`, the last three NaN for one
        seed; 6 decimals.
    """
    rows = []
    for keys, group in distances(structures, spec).groupby(CELL, sort=False):
        named = dict(zip(CELL, keys, strict=True))
        rows.append({**named, "n_images": group["n_images"].iloc[0], **spread(group["value"])})
    table = pd.DataFrame(rows).assign(**{PROTOCOL: spec.protocol})
    return spec.ordered(table, TITLES)[COLUMNS].round(6)


def caption(table: pd.DataFrame, spec: TableSpec) -> str:
    """Returns the caption of the table in its Markdown and LaTeX files, which explains the distances.

    Args:
        table: as `tidy` returns it; `student`, `checkpoint`, `n_seeds` and `n_images` are used.
        spec: name of the experiment, threat model, protocol and choice of the checkpoint.
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
    """Writes FOLDER/structure.{csv,md,tex}: class correlations and feature distances, their means over the seeds.

    Args:
        structures: as `read_structures` returns them: a row per model with the columns `teacher`, `student`, `method`,
            `seed`, `checkpoint`, `images`, `correlation`, `adversarial_correlation`, `feature_distance` and
            `feature_cosine_distance`.
        spec: the comparisons (student and teacher), and the order of the rows.
        folder: folder of the tables.
    """
    table = tidy(structures, spec)
    text, blocks = caption(table, spec), formats.blocks(table, spec, list(TITLES), "{:.3f}".format)
    markdown, latex = formats.markdown(text, blocks, TITLES), formats.latex(text, blocks, TITLES)
    formats.write(folder / "structure", table, markdown, latex)
