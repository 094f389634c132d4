"""The colour and the shape of each method and attack, which are the same in every figure.

Shapes differ as well as colours, so that figures can be read in black and white.
"""

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
    """One entry of a legend: a name, and the colour and the shape of its mark.

    Attributes:
        name: name of a method, such as `rslad`, title of an attack, such as `PGD-20`, or a number as text.
        colour: colour of the mark, `Colour(hex, css)`: `#rrggbb` for the files and a CSS value for the report.
        path: shape of the mark as the `d` attribute of an SVG path, within about -1 to 1 in both directions.
    """

    name: str
    colour: Colour
    path: str


def method_keys(methods: Iterable[str]) -> list[Key]:
    """Returns the colour and the shape of the teacher and of each distillation method, which are the same in every
    figure.

    The position of a method in `methods` decides its colour (one of 8) and shape (one of 7). So the first 56 methods
    differ from each other.

    Args:
        methods: names of all distillation methods of the experiment, such as `ard` and `rslad`, in the order of its
            file.

    Returns:
        The entry named `teacher` (a star), then one entry for each method, in the order of `methods`. An entry has
        `name`, `colour` (`Colour(hex, css)`) and `path` (shape as an SVG path).
    """
    # 7 shapes beside 8 colours: the first 56 methods differ.
    keys = (Key(name, METHODS[place % len(METHODS)], SHAPES[place % len(SHAPES)]) for place, name in enumerate(methods))
    return [Key(TEACHER, INK, STAR), *keys]


def present_keys(methods: Iterable[str], names: Iterable[str]) -> list[Key]:
    """Returns the legend of a figure: the colour and the shape of each method that occurs in it.

    Args:
        methods: names of all distillation methods of the experiment, such as `ard` and `rslad`, in the order of its
            file, which decides colours and shapes.
        names: names that occur in the figure: of methods, or `teacher`. Repetitions are allowed.

    Returns:
        The entries of `method_keys(methods)` whose name is in `names`, in the same order: `teacher` first. An entry has
        `name`, `colour` and `path` (shape).
    """
    occurring = set(names)
    return [key for key in method_keys(methods) if key.name in occurring]


def attack_keys(titles: list[str]) -> list[Key]:
    """Returns the colour and the shape of each attack, from a pale colour for the first to a dark one for the last.

    Args:
        titles: titles of the metrics, each once, the weakest attack first, such as `["Clean", "FGSM", "AutoAttack"]`.

    Returns:
        One entry for each title, in the same order, with `name` (the title), `colour` and `path` (shape).
    """
    last = max(len(titles) - 1, 1)
    return [Key(title, shade(30 + 70 * i // last), SHAPES[i % len(SHAPES)]) for i, title in enumerate(titles)]


def swatches(levels: Sequence[float], ramp: Sequence[str]) -> list[Key]:
    """Returns the legend of a heat map: squares in some of its colours, each named by its value.

    Args:
        levels: values to show, ascending, such as `(0, 25, 50, 75, 100)`. The first has the first colour of `ramp`, the
            last has the last colour, and the colours of the levels between them are interpolated linearly.
        ramp: colours (`#rrggbb`) of evenly spaced values, such as `figures.style.SEQUENTIAL`.

    Returns:
        One entry for each level, in the same order, with a name such as `25` or `0.5`. Its colour is the same on light
        and dark pages.
    """
    colours = ["#" + bytes(pixel[:3]).hex() for pixel in ramp_colours(np.array(levels), (levels[0], levels[-1]), ramp)]
    return [Key(f"{level:g}", Colour(colour, colour), SQUARE) for level, colour in zip(levels, colours, strict=True)]


def labels(rows: pd.DataFrame) -> pd.Series:
    """Returns the name under which each row of a table stands in a figure: its method, or `teacher` for a row about a
    teacher.

    Args:
        rows: any table with the columns `method` and `student`. The student of a row about a teacher is `-`.

    Returns:
        The names, with the index of `rows`.
    """
    return rows[METHOD].where(rows[STUDENT] != TEACHER_ROW, TEACHER)
