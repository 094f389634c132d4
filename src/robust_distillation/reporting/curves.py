"""Arranges training curves and curves of accuracy against eps as data frames."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from robust_distillation.columns import RUN
from robust_distillation.config import Run
from robust_distillation.files import read_json_lines
from robust_distillation.layout import Layout


def robustness_curves(curves: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Arranges curves of accuracy against eps as a data frame.

    Args:
        curves: contents of the JSON files of the step `robustness`, one per model. Of each, `teacher`, `student`,
            `method`, `seed`, `eps` (list) and `accuracy` (list, percent) are used.

    Returns:
        A row per model and eps. Columns: `teacher`, `student` (`-` for a teacher's own curve), `method`, `seed`, `eps`
        and `value` (percent). Empty without curves.
    """
    rows = [
        {**{key: curve[key] for key in RUN}, "eps": eps, "value": value}
        for curve in curves
        for eps, value in zip(curve["eps"], curve["accuracy"], strict=True)
    ]
    return pd.DataFrame(rows, columns=[*RUN, "eps", "value"])


def read_curves(runs: Iterable[Run], layout: Layout) -> pd.DataFrame:
    """Reads the training curves (metrics.jsonl) of several trainings.

    Args:
        runs: the trainings, at least one: teacher, student, method and seed of each.
        layout: paths of the experiment's files.

    Returns:
        A row per training and epoch. Columns: those of metrics.jsonl (`epoch`, `learning_rate`, `loss`, the method's
        loss terms, and `selection_clean` and `selection_robust`, accuracies in [0, 1] on the validation split), and
        `teacher`, `student`, `method` and `seed`. A value that a training or epoch does not have is NaN.

    Raises:
        CorruptFileError: if a file is empty or a line is not JSON.
        FileNotFoundError: if a file is missing.
    """
    frames = []
    for run in runs:
        folder = layout.student(run.teacher, run.student, run.method, run.seed)
        lines = pd.DataFrame(read_json_lines(layout.curves(folder)))
        frames.append(lines.assign(teacher=run.teacher, student=run.student, method=run.method, seed=run.seed))
    return pd.concat(frames, ignore_index=True)
