"""The colour and shape of each method and attack: the same in every figure, and different in black and white."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from robust_distillation.columns import METHOD, STUDENT, TEACHER_ROW
from robust_distillation.reporting.figures.style import INK, METHODS, Colour, ramp_colours, shade

SHAPES = (  # SVG paths within [-1, 1], as Vega scales them
    "M.9,0A.9,.9,0,1,1,-.9,0A.9,.9,0,1,1,.9,0Z",
    "M-.8,-.8H.8V.8H-.8Z",
    "M0,-1L1,.75H-1Z",
    "M0,-1.1L1.1,0L0,1.1L-1.1,0Z",
    "M-1,-.35H-.35V-1H.35V-.35H1V.35H.35V1H-.35V.35H-1Z",
    "M0,1L1,-.75H-1Z",
    "M-.85,-1L1.05,0L-.85,1Z",
)
STAR = "M0,-1.2L.3,-.4L1.15,-.37L.48,.16L.71,.97L0,.5L-.71,.97L-.48,.16L-1.15,-.37L-.3,-.4Z"
SQUARE = "M-1,-1H1V1H-1Z"
TEACHER = "teacher"  # the label of a teacher's own rows


class Key(NamedTuple):
    """An entry of a legend.

    Attributes:
        name: of a method, an attack or a value.
        colour: of its mark.
        path: its mark's shape as an SVG path within [-1, 1].
    """

    name: str
    colour: Colour
    path: str


def method_keys(methods: Iterable[str]) -> list[Key]:
    """Returns the teacher's key, then one per method in the order of the experiment."""
    # 7 shapes beside 8 colours: the first 56 methods differ.
    keys = (Key(name, METHODS[place % len(METHODS)], SHAPES[place % len(SHAPES)]) for place, name in enumerate(methods))
    return [Key(TEACHER, INK, STAR), *keys]


def present_keys(methods: Iterable[str], names: Iterable[str]) -> list[Key]:
    """Returns those of `method_keys` that occur in `names`."""
    occurring = set(names)
    return [key for key in method_keys(methods) if key.name in occurring]


def attack_keys(titles: list[str]) -> list[Key]:
    """Returns one key per attack, from pale (the first) to dark (the last)."""
    last = max(len(titles) - 1, 1)
    return [Key(title, shade(30 + 70 * i // last), SHAPES[i % len(SHAPES)]) for i, title in enumerate(titles)]


def swatches(levels: Sequence[float], ramp: Sequence[str]) -> list[Key]:
    """Returns keys of a heat map's colours at evenly spaced `levels` from the lowest value to the highest."""
    colours = ["#" + bytes(pixel[:3]).hex() for pixel in ramp_colours(np.array(levels), (levels[0], levels[-1]), ramp)]
    return [Key(f"{level:g}", Colour(colour, colour), SQUARE) for level, colour in zip(levels, colours, strict=True)]


def labels(rows: pd.DataFrame) -> pd.Series:
    """Returns each row's label in a figure: its method, or `teacher` for a teacher's own row."""
    return rows[METHOD].where(rows[STUDENT] != TEACHER_ROW, TEACHER)
