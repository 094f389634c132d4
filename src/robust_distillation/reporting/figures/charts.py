"""Kinds of charts that several figures share.

The functions return Vega-Altair charts without a size, a title or a legend. A column `label` of their data frames has
the tooltip of each mark.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from PIL import Image

from robust_distillation.columns import METHOD, METRIC, SEED
from robust_distillation.reporting.figures.figure import ROW, scale, wrapped
from robust_distillation.reporting.figures.legend import TEACHER, Key, attack_keys, method_keys
from robust_distillation.reporting.figures.style import PAGE, ramp_colours

LETTERS, LINE = 26, 11  # letters in a line of a row's name, and the line's height in pixels
PIXELS = 480  # of each side of a heat map's raster, at least


def _colours(keys: list[Key]) -> dict[str, Any]:
    return {"scale": scale(keys, [key.colour.hex for key in keys]), "legend": None}


def _shapes(keys: list[Key]) -> dict[str, Any]:
    return {"scale": scale(keys, [key.path for key in keys]), "legend": None}


def colour(methods: list[str]) -> alt.Color:
    """Returns the Vega-Altair encoding that colours marks by the distillation method.

    Args:
        methods: names of all distillation methods of the experiment, such as `ard` and `rslad`, in the order of its
            file, which decides colours and shapes.

    Returns:
        The encoding of the column `method` of the chart's data frame. The values of this column are names in `methods`,
        or `teacher`. It has no legend.
    """
    return alt.Color(f"{METHOD}:N", **_colours(method_keys(methods)))


def shape(methods: list[str]) -> alt.Shape:
    """Returns the Vega-Altair encoding that gives marks the shape of the distillation method.

    Args:
        methods: names of all distillation methods of the experiment, such as `ard` and `rslad`, in the order of its
            file, which decides colours and shapes.

    Returns:
        The encoding of the column `method` of the chart's data frame. The values of this column are names in `methods`,
        or `teacher`. It has no legend.
    """
    return alt.Shape(f"{METHOD}:N", **_shapes(method_keys(methods)))


def number(column: str, title: str, domain: tuple[float, float] | None = None, **more: Any) -> dict[str, Any]:
    """Returns the arguments of a Vega-Altair axis for a column of numbers, for `alt.X(**arguments)` or
    `alt.Y(**arguments)`.

    Args:
        column: name of the column in the chart's data frame, such as `value`.
        title: title of the axis, such as `accuracy (%)`.
        domain: lower and upper limit of the axis. None: from the smallest to the largest value, with 10 pixels on both
            sides.
        more: further arguments of `alt.X`, such as `axis`. They replace arguments of the same name.

    Returns:
        A dict with the keys `shorthand`, `title` and `scale`, and those of `more`.
    """
    limits = alt.Scale(domain=list(domain), nice=False) if domain else alt.Scale(zero=False, nice=False, padding=10)
    return {"shorthand": f"{column}:Q", "title": title, "scale": limits, **more}


def rows(column: str, order: list[str]) -> alt.Y:
    """Returns the Vega-Altair encoding of a vertical axis with one row for each name.

    Names longer than 26 characters are broken into lines.

    Args:
        column: name of the column that contains the names, such as `method`.
        order: all names, each once, from top to bottom.

    Returns:
        The encoding. The axis has no title.
    """
    labels = _labels(dict(zip(order, order, strict=True)), LINE)
    axis = alt.Axis(domain=False, ticks=False, labelPadding=8, **labels)  # a mark at 0 stays clear of the names
    return alt.Y(f"{column}:N", sort=order, title=None, axis=axis)


def _method_rows(frame: pd.DataFrame, methods: list[str]) -> alt.Y:
    return rows(METHOD, [name for name in [TEACHER, *methods] if name in set(frame[METHOD])])


def height_of(names: Iterable[str], row: int = ROW) -> int:
    """Computes the height of a chart that has one row for each name: `48 + number of names * height of a row`.

    The 48 pixels are for the horizontal axis. The height of a row is `max(row, 12 * lines)`, where `lines` is the
    largest number of lines that a name needs, with up to 26 characters in a line.

    Args:
        names: the names. Repetitions count once.
        row: minimum height of a row in pixels; 24 by default.

    Returns:
        The height in pixels, for `Panel.height`.
    """
    names = set(names)
    tallest = max((len(wrapped(name, LETTERS)) for name in names), default=1)
    return 48 + max(row, (LINE + 1) * tallest) * len(names)


def lines(
    frame: pd.DataFrame, methods: list[str], x: tuple[str, str], y: tuple[str, str], marked: float | None = None
) -> alt.LayerChart:
    """Draws a line with marks for the teacher and each distillation method, and shades the range of the seeds.

    Args:
        frame: one row for each method and place on the horizontal axis. Columns: `method` (name of a method, or
            `teacher`), the columns that `x` and `y` name, `low` and `high` (smallest and largest value of the seeds, in
            the unit of y), `label` (tooltip). Nothing is shaded if `low` and `high` are equal in all rows.
        methods: names of all distillation methods of the experiment, such as `ard` and `rslad`, in the order of its
            file, which decides colours and shapes.
        x: column and title of the horizontal axis, such as `("epoch", "epoch")`. If the column contains integers, the
            ticks are integers.
        y: column and title of the vertical axis, such as `("value", "accuracy (%)")`. Its values are in percent: the
            axis goes from 0 to 100.
        marked: place of a vertical dashed line, in the unit of x; None for no line.

    Returns:
        The chart, without a size, a title or a legend.
    """
    axis = alt.Axis(grid=False, format="d", tickMinStep=1) if frame[x[0]].dtype.kind == "i" else alt.Axis(grid=False)
    across, up = alt.X(**number(*x, axis=axis)), alt.Y(**number(*y, domain=(0, 100)))
    base = alt.Chart(frame)
    layers: list[alt.Chart] = []
    if marked is not None:
        place = alt.Chart(pd.DataFrame({x[0]: [marked]}))
        layers.append(place.mark_rule(strokeDash=[4, 3], opacity=0.6).encode(x=across))
    if not frame["low"].equals(frame["high"]):
        area = base.mark_area(opacity=0.13).encode(x=across, y="low:Q", y2="high:Q", color=colour(methods))
        layers.append(area)
    layers.append(base.mark_line().encode(x=across, y=up, color=colour(methods)))
    points = base.mark_point(filled=True, opacity=1, size=34)
    encoded = points.encode(x=across, y=up, color=colour(methods), shape=shape(methods), description="label:N")
    return alt.layer(*layers, encoded)


def scatter(frame: pd.DataFrame, methods: list[str], x: tuple[str, str], y: tuple[str, str]) -> alt.LayerChart:
    """Draws two numbers of the teacher and of each distillation method against each other: a small mark for each seed
    and a large mark for the mean.

    Args:
        frame: one row for each mark. Columns: `method` (name of a method, or `teacher`), `seed` (missing in rows of
            means), the columns that `x` and `y` name, `label` (tooltip).
        methods: names of all distillation methods of the experiment, such as `ard` and `rslad`, in the order of its
            file, which decides colours and shapes.
        x: column and title of the horizontal axis, such as `("x", "clean accuracy (%)")`. Its values are in percent.
        y: column and title of the vertical axis. Its values are in percent.

    Returns:
        The chart, without a size, a title or a legend. Each axis covers its values and, on both sides, a margin of
        `max(1, (largest - smallest) / 20)`.
    """
    encoded = {
        "x": alt.X(**number(*x, _about(frame[x[0]]))), "y": alt.Y(**number(*y, _about(frame[y[0]]))),
        "color": colour(methods), "shape": shape(methods), "description": "label:N",
    }  # fmt: skip
    seeds = alt.Chart(frame[frame[SEED].notna()]).mark_point(filled=True, size=30, opacity=0.5)
    means = alt.Chart(frame[frame[SEED].isna()]).mark_point(
        filled=True, size=120, opacity=1, stroke=PAGE.hex, strokeWidth=1
    )
    return alt.layer(seeds.encode(**encoded), means.encode(**encoded))


def _about(values: pd.Series) -> tuple[float, float]:
    """Returns limits around `values` with a margin of a twentieth, and of one at least."""
    margin = max((values.max() - values.min()) / 20, 1.0)
    return values.min() - margin, values.max() + margin


def dots(
    frame: pd.DataFrame, methods: list[str], title: str, domain: tuple[float, float] | None = None
) -> alt.LayerChart:
    """Draws a row for the teacher and each distillation method: a large mark with a bar for the mean, and below it a
    small mark for each seed.

    Args:
        frame: one row for each mark, as `reporting.figures.dots.mean_and_seeds` returns them. Columns: `method` (name
            of a method, or `teacher`), `value`, `low` and `high` (ends of the bar; missing: no bar), `seed` (missing in
            rows of means), `label` (tooltip).
        methods: names of all distillation methods of the experiment, such as `ard` and `rslad`, in the order of its
            file, which decides colours and shapes. The rows have the same order, below the row of the teacher. Methods
            that do not occur in `frame` have no row.
        title: title of the horizontal axis, such as `accuracy (%)`.
        domain: lower and upper limit of the horizontal axis; None for limits a little beyond the values.

    Returns:
        The chart, without a size, a title or a legend.
    """
    row = _method_rows(frame, methods)
    encoded = {
        "x": alt.X(**number("value", title, domain)), "y": row, "color": colour(methods), "shape": shape(methods),
        "description": "label:N",
    }  # fmt: skip
    means, seeds = frame[frame[SEED].isna()], frame[frame[SEED].notna()]
    layers = [alt.Chart(seeds).mark_point(filled=True, size=22, opacity=0.6, yOffset=8).encode(**encoded)]
    if means["low"].notna().any():
        bar = alt.Chart(means.dropna(subset=["low"])).mark_rule(strokeWidth=2)
        layers.append(bar.encode(x="low:Q", x2="high:Q", y=row, color=colour(methods)))
    layers.append(alt.Chart(means).mark_point(filled=True, size=75, opacity=1).encode(**encoded))
    return alt.layer(*layers)


def forest(frame: pd.DataFrame, methods: list[str], title: str) -> alt.LayerChart:
    """Draws differences with their intervals as a forest plot: a row for each difference, and a vertical line at zero.

    Args:
        frame: one row for each difference, from top to bottom. Columns: `row` (name of the row, different in each, such
            as `rslad − ard`), `method` (name of the method that decides the colour and the shape), `value` (the
            difference), `low` and `high` (ends of the interval), `label` (tooltip), `apart` (bool; the mark is filled
            if it is True, else hollow).
        methods: names of all distillation methods of the experiment, such as `ard` and `rslad`, in the order of its
            file, which decides colours and shapes.
        title: title of the horizontal axis, such as `difference (points)`.

    Returns:
        The chart, without a size, a title or a legend.
    """
    row, base = rows("row", list(frame["row"])), alt.Chart(frame)
    zero = alt.Chart(pd.DataFrame({"low": [0]})).mark_rule(opacity=0.6).encode(x="low:Q")
    bar = base.mark_rule(strokeWidth=1.8).encode(x="low:Q", x2="high:Q", y=row, color=colour(methods))
    filled = alt.Fill(f"{METHOD}:N", **_colours(method_keys(methods)))
    marks = base.mark_point(size=55, opacity=1, strokeWidth=1.6).encode(
        x=alt.X(**number("value", title)), y=row, shape=shape(methods), description="label:N",
        stroke=alt.Stroke(f"{METHOD}:N", **_colours(method_keys(methods))),
        fill=alt.condition("datum.apart", filled, alt.value(PAGE.hex)),
    )  # fmt: skip
    return alt.layer(zero, bar, marks)


def by_attack(frame: pd.DataFrame, methods: list[str], attacks: list[str]) -> alt.LayerChart:
    """Draws a row for the teacher and each distillation method with one mark for each attack, and a line from its
    lowest accuracy to its highest.

    Args:
        frame: one row for each mark. Columns: `method` (name of a method, or `teacher`), `metric` (a title in
            `attacks`), `value` (accuracy in percent), `label` (tooltip).
        methods: names of all distillation methods of the experiment, in the order of the rows, below the row of the
            teacher. Methods that do not occur in `frame` have no row.
        attacks: titles of the metrics, the weakest attack first, such as `["Clean", "PGD-20", "AutoAttack"]`. Their
            order decides colours and shapes.

    Returns:
        The chart, without a size, a title or a legend. Its horizontal axis goes from 0 to 100.
    """
    keys, row, base = attack_keys(attacks), _method_rows(frame, methods), alt.Chart(frame)
    across = number("value", "accuracy (%)", (0, 100))
    ends = {"x": alt.X(**across | {"shorthand": "min(value):Q"}), "x2": "max(value):Q"}
    marks = base.mark_point(filled=True, size=65, opacity=1).encode(
        x=alt.X(**across), y=row, description="label:N",
        color=alt.Color(f"{METRIC}:N", **_colours(keys)), shape=alt.Shape(f"{METRIC}:N", **_shapes(keys)),
    )  # fmt: skip
    return alt.layer(base.mark_rule(strokeWidth=1, opacity=0.4).encode(y=row, **ends), marks)


def heat_map(
    values: np.ndarray, limits: tuple[float, float], ramp: Sequence[str], rows: list[str], columns: list[str],
    numbers: bool = False, size: int = 11,
) -> alt.LayerChart:  # fmt: skip
    """Draws a matrix as a raster of coloured cells.

    Args:
        values: floats [R,C]. Cells that are NaN have neither a colour nor a number.
        limits: values of the first and of the last colour of `ramp`, ascending, such as `(0, 100)`. Values beyond them
            have the nearer colour.
        ramp: colours (`#rrggbb`) of evenly spaced values from one limit to the other, such as
            `figures.style.SEQUENTIAL`, from violet to yellow.
        rows: names of the R rows, from top to bottom; empty for none.
        columns: names of the C columns, from left to right; empty for none.
        numbers: True to write each value into its cell, rounded to a whole number.
        size: font size of the names in pixels.

    Returns:
        The chart, without a size, a title or a legend.
    """
    height, width = values.shape
    pixels = ramp_colours(values, limits, ramp)
    corners = pd.DataFrame({"url": [_raster(pixels)], "left": [0], "right": [width], "top": [0], "bottom": [height]})
    image = alt.Chart(corners).mark_image(aspect=False).encode(
        url="url:N", x=alt.X("left:Q", **_cells(columns, width, size)), x2="right",
        y=alt.Y("top:Q", **_cells(rows, height, size, down=True)), y2="bottom",
    )  # fmt: skip
    if not numbers:
        return alt.layer(image)
    cells = pd.DataFrame([
        {"across": column + 0.5, "down": row + 0.5, "text": f"{value:.0f}", "dark": bool(_light(pixels[row, column]))}
        for (row, column), value in np.ndenumerate(values) if not np.isnan(value)
    ])  # fmt: skip
    text = alt.Chart(cells).mark_text(fontSize=11).encode(
        x="across:Q", y="down:Q", text="text:N",
        color=alt.condition("datum.dark", alt.value("black"), alt.value("white")),
    )  # fmt: skip
    return alt.layer(image, text)


def _cells(names: list[str], count: int, size: int, down: bool = False) -> dict[str, Any]:
    """Returns scale and axis of `count` cells with their names in their middle."""
    limits = alt.Scale(domain=[0, count], nice=False, zero=False, reverse=down)
    if not names:
        return {"scale": limits, "axis": None}
    places = [i + 0.5 for i in range(count)]
    axis = alt.Axis(
        values=places, tickCount=count, title=None, ticks=False, domain=False, grid=False, labelPadding=5,
        labelAngle=-90 if not down and median(map(len, names)) > 3 else 0, labelFontSize=size, labelOverlap=False,
        **_labels(dict(zip(places, names, strict=True)), size),
    )  # fmt: skip
    return {"scale": limits, "axis": axis}


def _labels(names: dict[Any, str], line: int) -> dict[str, Any]:
    """Returns the properties of an axis whose labels are broken into lines and centred at their ticks.

    Args:
        names: label by the axis's value.
        line: height of a line in pixels.
    """
    lines = {str(value): wrapped(name, LETTERS) for value, name in names.items()}
    texts = json.dumps(lines)
    offset = f"-{line / 2} * max(0, length({texts}[datum.value]) - 1)"
    return {
        "labelExpr": f"{texts}[datum.value]", "labelLimit": 0, "labelLineHeight": line,
        "labelOffset": {"expr": offset},
    }  # fmt: skip


def _light(pixel: Iterable[int]) -> bool:
    red, green, blue, _ = map(int, pixel)
    return 0.299 * red + 0.587 * green + 0.114 * blue > 140


def _raster(pixels: np.ndarray) -> str:
    """Returns the cells [R,C,4] as a PNG in a `data:` URL, each many pixels wide, so that none is smoothed away."""
    down, across = (-(-PIXELS // count) for count in pixels.shape[:2])
    image = Image.fromarray(pixels.repeat(down, axis=0).repeat(across, axis=1))
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
