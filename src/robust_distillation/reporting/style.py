"""How every figure looks, and how it is written."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robust_distillation.files import replacing

STYLE = {
    "figure.dpi": 150, "savefig.bbox": "tight", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.alpha": 0.25, "legend.frameon": False,
}  # fmt: skip
ROW = 0.26  # inches of a row of `dots`


def colours(methods: list[str]) -> dict[str, tuple]:
    """One colour per method, the same in every figure."""
    return {method: plt.get_cmap("tab10" if len(methods) <= 10 else "tab20")(i) for i, method in enumerate(methods)}


def save(figure: Figure, stem: Path) -> None:
    """Both files, without the time of day in them."""
    for suffix, metadata in (
        (".png", {"Software": None}),
        (".pdf", {"CreationDate": None, "Creator": None, "Producer": None}),
    ):
        with replacing(stem.with_suffix(suffix)) as temporary:
            figure.savefig(temporary, metadata=metadata)
    plt.close(figure)


def wrapped(name: str, width: int) -> str:
    """A name broken into lines of at most `width` characters, after hyphens where there are any."""
    return "\n".join(textwrap.wrap(name, width))


def dots(axis: Axes, values: dict[str, Sequence[float]], colour: dict[str, tuple], itself: float | None) -> None:
    """A row per method from the top: a large dot for the mean over the seeds with the standard deviation as its bar,
    and beneath it a small one per seed. The teacher's own value is a star in the first row, with a dashed line down."""
    first = 0 if itself is None else 1
    if itself is not None:
        axis.axvline(itself, color="black", linestyle="--", linewidth=0.8, zorder=1)
        axis.scatter([itself], [0], s=90, color="black", marker="*", zorder=3)
    for row, (method, found) in enumerate(values.items(), first):
        mean, sd = np.mean(found), np.std(found, ddof=1) if len(found) > 1 else 0
        axis.errorbar(mean, row, xerr=sd or None, color=colour[method], capsize=2.5, linewidth=1.2, zorder=2)
        axis.scatter(mean, row, s=32, color=colour[method], edgecolors="white", linewidths=0.5, zorder=4)
        axis.scatter(found, [row + 0.28] * len(found), s=7, color=colour[method], linewidths=0, zorder=3)
    names = ["teacher"] * first + [wrapped(name, 28) for name in values]
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(False, axis="y")
    axis.locator_params(axis="x", nbins=6)
