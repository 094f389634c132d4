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
    """Arranges curves of accuracy against eps, the size of the perturbation in the pixel range [0, 1], as one table.

    Args:
        curves: contents of the JSON files of the step `robustness`, one per trained network (a teacher, or a student of
            one method and one seed), such as results/digits/robustness/students/wide/small/rslad/seed-0.json. Used
            keys: `teacher`, `student`, `method`, `seed`, `eps` (list, from 0 upwards) and `accuracy` (list of the same
            length, percent).

    Returns:
        One row per network and eps. Columns: `teacher`, `student` (`-` for a teacher's own curve), `method`, `seed`,
        `eps` and `value` (accuracy in percent). No rows if there are no curves.
    """
    rows = [
        {**{key: curve[key] for key in RUN}, "eps": eps, "value": value}
        for curve in curves
        for eps, value in zip(curve["eps"], curve["accuracy"], strict=True)
    ]
    return pd.DataFrame(rows, columns=[*RUN, "eps", "value"])


def read_curves(runs: Iterable[Run], layout: Layout) -> pd.DataFrame:
    """Reads the training curves of several students into one table.

    Args:
        runs: the trainings, at least one, such as `experiment.runs`. Each has the attributes `teacher`, `student`,
            `method` and `seed`.
        layout: paths of the experiment's files, `experiment.layout`. The files are those such as
            results/digits/students/wide/small/rslad/seed-0/metrics.jsonl, with one line of JSON per epoch.

    Returns:
        One row per training and epoch, training after training. Columns: those of metrics.jsonl (`epoch` from 1,
        `learning_rate`, `loss`, the loss terms of the method, and `selection_clean`, `selection_robust`, `train_clean`,
        `train_robust`), and `teacher`, `student`, `method` and `seed`. `selection_clean` and `selection_robust` are
        accuracies in [0, 1] on clean and on attacked images of the validation split, or of the test split under the
        protocol `official` (the settings of the methods' authors). A value that a training or epoch does not have is
        NaN.

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
