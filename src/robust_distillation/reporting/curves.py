"""Training curves as one frame."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from robust_distillation.config import Run
from robust_distillation.files import read_json_lines
from robust_distillation.layout import Layout


def read_curves(runs: Iterable[Run], layout: Layout) -> pd.DataFrame:
    """One row per run and epoch: teacher, student, method, seed, and what metrics.jsonl holds."""
    frames = []
    for run in runs:
        folder = layout.student(run.teacher, run.student, run.method, run.seed)
        lines = pd.DataFrame(read_json_lines(folder / "metrics.jsonl"))
        frames.append(lines.assign(teacher=run.teacher, student=run.student, method=run.method, seed=run.seed))
    return pd.concat(frames, ignore_index=True)
