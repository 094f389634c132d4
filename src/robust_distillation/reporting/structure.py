"""Table of class correlations and feature distances, from the files that the step `structure` wrote."""

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
    """Returns a row per model and checkpoint: its keys and the values of `evaluation.structure.structure_of`.

    A teacher's own row has the student `-`.
    """
    return pd.DataFrame([read_json(file) for file in files])


def distances(structures: pd.DataFrame, spec: TableSpec) -> pd.DataFrame:
    """Returns a row per model, checkpoint and metric: CELL, seed, n_images, value.

    A student is compared with its teacher; one trained without a teacher is compared with the teacher of every
    comparison and stands once under each. correlation_distance is that of the logits on clean images,
    adversarial_correlation_distance that on x', each network's own. A teacher has feature distances only.

    Args:
        structures: as `read_structures` returns them.
        spec: the comparisons.
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
    """Returns structure.csv: a row per teacher, student, method, checkpoint and metric with the statistics over seeds.

    The interval is Student's t (95 %). Teachers' own rows come first, with the student `-`.

    Args:
        structures: as `read_structures` returns them.
        spec: the comparisons, and the order of the rows.
    """
    rows = []
    for keys, group in distances(structures, spec).groupby(CELL, sort=False):
        named = dict(zip(CELL, keys, strict=True))
        rows.append({**named, "n_images": group["n_images"].iloc[0], **spread(group["value"])})
    table = pd.DataFrame(rows).assign(**{PROTOCOL: spec.protocol})
    return spec.ordered(table, TITLES)[COLUMNS].round(6)


def caption(table: pd.DataFrame, spec: TableSpec) -> str:
    """Returns the caption of the table in its files."""
    images, seeds = table["n_images"].iloc[0], formats.aggregate_label(table)
    return (
        f"{spec.experiment}: structural knowledge and robust features on {images} test images, {spec.threat}, "
        f"{spec.protocol} protocol; {seeds}. {formats.checkpoints_label(table, spec)}. x' is PGD-20 on the model "
        "itself. Correlation distance, from 0 to 1.41: root mean square difference between the class-correlation "
        "matrices of the student's and the teacher's logits, on x' each on its own; smaller is closer to the teacher. "
        "Feature distance: mean of |φ(x') − φ(x)| / |φ(x)|, and of 1 − cos between the two; smaller is more robust."
    )


def write_tables(structures: pd.DataFrame, spec: TableSpec, folder: Path) -> None:
    """Writes FOLDER/structure.{csv,md,tex}.

    Args:
        structures: as `read_structures` returns them.
        spec: the comparisons, and the order of the rows.
        folder: of the tables.
    """
    table = tidy(structures, spec)
    text, blocks = caption(table, spec), formats.blocks(table, spec, list(TITLES), "{:.3f}".format)
    markdown, latex = formats.markdown(text, blocks, TITLES), formats.latex(text, blocks, TITLES)
    formats.write(folder / "structure", table, markdown, latex)
