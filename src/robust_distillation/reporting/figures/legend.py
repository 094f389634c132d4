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
    """An entry of a legend: a name, and the colour and shape of its mark.

    Attributes:
        name: name of a method, title of an attack, or a number as text.
        colour: colour of the mark.
        path: shape of the mark as the `d` attribute of an SVG path, about within [-1, 1].
    """

    name: str
    colour: Colour
    path: str


def method_keys(methods: Iterable[str]) -> list[Key]:
    """Returns the colour and shape of the teacher and of each method.

    The position of a method in `methods` decides its colour and shape. The first 56 methods differ from each other.

    Args:
        methods: names of all methods of the experiment, in the order of its file.

    Returns:
        The key named `teacher` (a star), then one key for each method, in the same order.
    """
    # 7 shapes beside 8 colours: the first 56 methods differ.
    keys = (Key(name, METHODS[place % len(METHODS)], SHAPES[place % len(SHAPES)]) for place, name in enumerate(methods))
    return [Key(TEACHER, INK, STAR), *keys]


def present_keys(methods: Iterable[str], names: Iterable[str]) -> list[Key]:
    """Returns the colours and shapes of those methods that occur in a figure.

    Args:
        methods: names of all methods of the experiment, in the order of its file, which decides colours and shapes.
        names: names that occur in the figure: of methods, or `teacher`. Repetitions are allowed.

    Returns:
        The keys of `method_keys(methods)` whose name is in `names`: the teacher's first, then in the order of
        `methods`.
    """
    occurring = set(names)
    return [key for key in method_keys(methods) if key.name in occurring]


def attack_keys(titles: list[str]) -> list[Key]:
    """Returns the colour and shape of each attack, from a pale colour for the first to a dark one for the last.

    Args:
        titles: titles of the metrics, the weakest attack first, such as `Clean`, `FGSM`, `AutoAttack`.

    Returns:
        One key for each title, in the same order.
    """
    last = max(len(titles) - 1, 1)
    return [Key(title, shade(30 + 70 * i // last), SHAPES[i % len(SHAPES)]) for i, title in enumerate(titles)]


def swatches(levels: Sequence[float], ramp: Sequence[str]) -> list[Key]:
    """Returns legend entries for the colours of a heat map: squares, named by the value.

    Args:
        levels: values, ascending. The first has the first colour of `ramp`, the last has the last, and those between
            are interpolated linearly.
        ramp: colours (#rrggbb) of evenly spaced values.

    Returns:
        One key for each level, in the same order, named like `0.5`. The colour is the same in light and dark pages.
    """
    colours = ["#" + bytes(pixel[:3]).hex() for pixel in ramp_colours(np.array(levels), (levels[0], levels[-1]), ramp)]
    return [Key(f"{level:g}", Colour(colour, colour), SQUARE) for level, colour in zip(levels, colours, strict=True)]


def labels(rows: pd.DataFrame) -> pd.Series:
    """Returns the name of each row in a figure: its method, or `teacher` if it is a teacher's row.

    Args:
        rows: any table with the columns student and method. The student of a teacher's row is `-`.

    Returns:
        The names, with the index of `rows`.
    """
    return rows[METHOD].where(rows[STUDENT] != TEACHER_ROW, TEACHER)
