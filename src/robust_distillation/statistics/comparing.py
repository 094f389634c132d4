"""Methods against each other on the same images and seeds, corrected for how many comparisons are made.

One correction everywhere, Bonferroni's: the interval of a comparison is at level 1 - 0.05 / m and its p value times m,
where m comparisons belong together. So a simultaneous interval leaves zero out exactly where the adjusted p is below
0.05, and all m intervals of a family hold at once with 95 %.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from robust_distillation.columns import NO_TEACHER
from robust_distillation.statistics.accuracies import Held, matrices
from robust_distillation.statistics.intervals import ALPHA, MeanSquares, half_width, mean_squares, p_value

COLUMNS = [
    "teacher", "student", "checkpoint", "metric", "method", "other",
    "n_seeds", "n_images", "difference", "ci_low", "ci_high", "p", "p_adjusted", "comparisons",
]  # fmt: skip


class Outcomes(NamedTuple):
    """All that was held, by teacher, student, method and checkpoint."""

    held: Mapping[tuple[str, ...], Held]

    @classmethod
    def of(cls, outcomes: pd.DataFrame) -> Outcomes:
        return cls(dict(matrices(outcomes)))

    def find(self, teacher: str, student: str, method: str, checkpoint: str) -> Held | None:
        """Of a method distilled from this teacher, or trained without one."""
        keys = ((name, student, method, checkpoint) for name in (teacher, NO_TEACHER))
        return next((self.held[key] for key in keys if key in self.held), None)


def paired(first: Held, second: Held, metric: str) -> np.ndarray | None:
    """First less second, [S, N] of -1, 0 and 1, for the seeds that both have; None where there is none."""
    seeds = [seed for seed in first.seeds if seed in second.seeds]
    if not seeds:
        return None
    a, b = (held.values[metric][[held.seeds.index(seed) for seed in seeds]] for held in (first, second))
    return a.astype(np.int8) - b.astype(np.int8)


def comparisons(
    outcomes: Outcomes, pairs: Iterable[tuple[str, str]], methods: list[str], checkpoints: list[str], metrics: list[str]
) -> pd.DataFrame:
    """COLUMNS: for every teacher and student, checkpoint and metric every two methods that share a seed, the later of
    `methods` less the earlier, in points. A family is what one teacher, student, checkpoint and metric have."""
    rows = []
    for teacher, student in pairs:
        for checkpoint in checkpoints:
            held = {method: outcomes.find(teacher, student, method, checkpoint) for method in methods}
            present = [method for method in methods if held[method]]
            for metric in metrics:
                found = {
                    (method, other): mean_squares(differences)
                    for other, method in combinations(present, 2)
                    if (differences := paired(held[method], held[other], metric)) is not None
                }
                named = {"teacher": teacher, "student": student, "checkpoint": checkpoint, "metric": metric}
                rows += [
                    {**named, "method": method, "other": other, **compared(squares, len(found))}
                    for (method, other), squares in found.items()
                ]
    return pd.DataFrame(rows, columns=COLUMNS)


def compared(found: MeanSquares, family: int) -> dict[str, float]:
    """The columns of one comparison among `family`; differences in points."""
    half, p = half_width(found, ALPHA / family), float(p_value(found))
    return {
        "n_seeds": found.seeds,
        "n_images": found.images,
        "difference": 100 * found.mean,
        "ci_low": 100 * max(found.mean - half, -1),
        "ci_high": 100 * min(found.mean + half, 1),
        "p": p,
        "p_adjusted": min(1.0, family * p),
        "comparisons": family,
    }
