"""Training curves and curves of accuracy against eps as frames."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from robust_distillation.columns import RUN
from robust_distillation.config import Run
from robust_distillation.files import read_json_lines
from robust_distillation.layout import Layout


def robustness_curves(curves: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Returns a row per run and eps: RUN, eps, value (percent). curves: the contents of the files of robustness."""
    rows = [
        {**{key: curve[key] for key in RUN}, "eps": eps, "value": value}
        for curve in curves
        for eps, value in zip(curve["eps"], curve["accuracy"], strict=True)
    ]
    return pd.DataFrame(rows, columns=[*RUN, "eps", "value"])


def read_curves(runs: Iterable[Run], layout: Layout) -> pd.DataFrame:
    """Reads the training curves of `runs`: a row per run and epoch with RUN and the values of metrics.jsonl."""
    frames = []
    for run in runs:
        folder = layout.student(run.teacher, run.student, run.method, run.seed)
        lines = pd.DataFrame(read_json_lines(layout.curves(folder)))
        frames.append(lines.assign(teacher=run.teacher, student=run.student, method=run.method, seed=run.seed))
    return pd.concat(frames, ignore_index=True)
