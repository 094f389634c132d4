"""Charts as static SVG, drawn by Vega-Altair: no script, sharp in print, coloured by the page's own style sheet.

A panel is as wide as a phone, so that its letters are as large there as on a desk, where panels stand side by side.
What a mark stands for is its `title`, which browsers show where the pointer rests.
"""

from __future__ import annotations

import re
from typing import Any

import altair as alt
import pandas as pd
import vl_convert
from markupsafe import Markup

from robust_distillation.reporting.report.elements import Key, Panel
from robust_distillation.reporting.report.legend import SHAPES, TEACHER, legend

WIDTH, HEIGHT, ROW = 340, 240, 24  # pixels
CONFIG: dict[str, Any] = {
    "background": "transparent",
    "padding": {"left": 12, "right": 8, "top": 5, "bottom": 5},  # a reader's font may be wider than that measured with
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "currentColor", "titleColor": "currentColor", "gridColor": "var(--rule)",
        "tickColor": "var(--rule)", "domainColor": "var(--rule)", "labelFontSize": 11, "titleFontSize": 12,
        "titleFontWeight": "normal", "labelLimit": 150, "tickCount": 6,
    },
    "line": {"strokeWidth": 1.8}, "text": {"color": "currentColor"}, "rule": {"color": "currentColor"},
}  # fmt: skip


def panel(chart: alt.Chart | alt.LayerChart, alternative: str, title: str = "", height: int = HEIGHT) -> Panel:
    """`alternative` says in words what the chart shows."""
    fit = alt.AutoSizeParams(type="fit", contains="padding")
    padding = {"left": 14, "right": 8, "top": 4, "bottom": 4}  # a reader's font may be wider than the one here
    sized = chart.properties(width=WIDTH, height=height, autosize=fit, padding=padding)
    return Panel(_slim(vl_convert.vegalite_to_svg(sized.to_dict() | {"config": CONFIG})), alternative, title)


def _slim(svg: str) -> Markup:
    """Without what only interaction needs, coordinates to a tenth of a pixel, and labels of marks as their titles."""
    svg = re.sub(r' (role|aria-roledescription|aria-hidden|pointer-events)="[^"]*"', "", svg)
    svg = re.sub(r'<path aria-label="([^"]*)"([^>]*)/>', r"<path\2><title>\1</title></path>", svg)
    svg = re.sub(r' aria-label="[^"]*"', "", svg)
    coordinates = re.compile(r' (d|transform|x2?|y2?|width|height)="[^"]*"')
    svg = coordinates.sub(lambda found: re.sub(r"-?\d+\.\d\d+", _rounded, found[0]), svg)
    return Markup(svg)  # Vega escapes what names are in it


def _rounded(found: re.Match[str]) -> str:
    return f"{float(found[0]):.1f}".removesuffix(".0")


def _coloured(keys: list[Key]) -> dict[str, Any]:
    scale = alt.Scale(domain=[key.name for key in keys], range=[key.colour for key in keys])
    return {"type": "nominal", "scale": scale, "legend": None}


def _shaped(keys: list[Key]) -> dict[str, Any]:
    scale = alt.Scale(domain=[key.name for key in keys], range=[key.path for key in keys])
    return {"type": "nominal", "scale": scale, "legend": None}


def colour(names: list[str]) -> alt.Color:
    return alt.Color("method", **_coloured(legend(names)))


def shape(names: list[str]) -> alt.Shape:
    return alt.Shape("method", **_shaped(legend(names)))


def number(name: str, title: str, domain: tuple[float, float] | None = None, **more: Any) -> dict[str, Any]:
    """An axis of numbers: over `domain`, or about what occurs."""
    scale = alt.Scale(domain=list(domain), nice=False) if domain else alt.Scale(zero=False, nice=False, padding=10)
    return {"shorthand": name, "type": "quantitative", "title": title, "scale": scale, **more}


def rows(column: str, order: list[str]) -> alt.Y:
    """A row per value of `column`."""
    axis = alt.Axis(domain=False, ticks=False, labelLimit=170, labelPadding=8)  # a mark at 0 does not touch it
    return alt.Y(column, type="nominal", sort=order, title=None, axis=axis)


def _methods(frame: pd.DataFrame, names: list[str]) -> alt.Y:
    return rows("method", [name for name in [TEACHER, *names] if name in set(frame["method"])])


def lines(
    frame: pd.DataFrame, names: list[str], x: tuple[str, str], y: tuple[str, str], marked: float | None = None
) -> alt.LayerChart:
    """A line per method with its marks, and its range over the seeds shaded.

    frame: method, the columns of x and y (name and title), low, high, and label, what is said of each point. At
    `marked` stands a dashed line.
    """
    axis = alt.Axis(grid=False, format="d", tickMinStep=1) if frame[x[0]].dtype.kind == "i" else alt.Axis(grid=False)
    at, value, base = alt.X(**number(*x, axis=axis)), alt.Y(**number(*y, domain=(0, 100))), alt.Chart(frame)
    line = base.mark_line().encode(x=at, y=value, color=colour(names))
    points = base.mark_point(filled=True, opacity=1, size=34).encode(
        x=at, y=value, color=colour(names), shape=shape(names), description="label:N"
    )
    layers = [line, points]
    if not frame["low"].equals(frame["high"]):
        layers.insert(0, base.mark_area(opacity=0.13).encode(x=at, y="low:Q", y2="high:Q", color=colour(names)))
    if marked is not None:
        place = alt.Chart(pd.DataFrame({x[0]: [marked]}))
        layers.insert(0, place.mark_rule(strokeDash=[4, 3], opacity=0.6).encode(x=at))
    return alt.layer(*layers)


def scatter(frame: pd.DataFrame, names: list[str], x: tuple[str, str], y: tuple[str, str]) -> alt.LayerChart:
    """A small mark per seed and a large one for the mean: columns method, x, y, seed (missing: the mean), label."""
    encoded = {
        "x": alt.X(**number(*x)), "y": alt.Y(**number(*y)), "color": colour(names), "shape": shape(names),
        "description": "label:N",
    }  # fmt: skip
    seeds = alt.Chart(frame[frame["seed"].notna()]).mark_point(filled=True, size=30, opacity=0.5)
    means = alt.Chart(frame[frame["seed"].isna()]).mark_point(
        filled=True, size=120, opacity=1, stroke="var(--page)", strokeWidth=1
    )
    return alt.layer(seeds.encode(**encoded), means.encode(**encoded))


def dots(
    frame: pd.DataFrame, names: list[str], title: str, domain: tuple[float, float] | None = None
) -> alt.LayerChart:
    """A row per method: a large mark for the mean, its interval as a bar, a small mark per seed.

    frame: method, value, low, high (missing: none), seed (missing: the mean), label. A teacher comes first.
    """
    row = _methods(frame, names)
    encoded = {
        "x": alt.X(**number("value", title, domain)), "y": row, "color": colour(names), "shape": shape(names),
        "description": "label:N",
    }  # fmt: skip
    means, seeds = frame[frame["seed"].isna()], frame[frame["seed"].notna()]
    layers = [alt.Chart(seeds).mark_point(filled=True, size=22, opacity=0.6, yOffset=8).encode(**encoded)]
    if means["low"].notna().any():
        bar = alt.Chart(means.dropna(subset=["low"])).mark_rule(strokeWidth=2)
        layers.append(bar.encode(x="low:Q", x2="high:Q", y=row, color=colour(names)))
    layers.append(alt.Chart(means).mark_point(filled=True, size=75, opacity=1).encode(**encoded))
    return alt.layer(*layers)


def forest(frame: pd.DataFrame, names: list[str], title: str) -> alt.LayerChart:
    """A row per difference with its interval, hollow where that holds zero: columns row, method, value, low, high,
    apart, label; from the top as they come."""
    row, base = rows("row", list(frame["row"])), alt.Chart(frame)
    zero = alt.Chart(pd.DataFrame({"low": [0]})).mark_rule(opacity=0.6).encode(x="low:Q")
    bar = base.mark_rule(strokeWidth=1.8).encode(x="low:Q", x2="high:Q", y=row, color=colour(names))
    filled = alt.Fill("method", **_coloured(legend(names)))
    marks = base.mark_point(size=55, opacity=1, strokeWidth=1.6).encode(
        x=alt.X(**number("value", title)), y=row, shape=shape(names), description="label:N",
        stroke=alt.Stroke("method", **_coloured(legend(names))),
        fill=alt.condition("datum.apart", filled, alt.value("var(--page)")),
    )  # fmt: skip
    return alt.layer(zero, bar, marks)


def attack_keys(metrics: list[str]) -> list[Key]:
    """From clean to the strongest: from pale to dark, each with a shape of its own."""
    last = max(len(metrics) - 1, 1)
    shades = [f"color-mix(in srgb, var(--accent) {30 + 70 * place // last}%, var(--page))" for place in range(last + 1)]
    return [Key(name, shades[place], SHAPES[place % len(SHAPES)]) for place, name in enumerate(metrics)]


def by_attack(frame: pd.DataFrame, names: list[str], metrics: list[str]) -> alt.LayerChart:
    """A row per method, a mark per attack: columns method, metric, value, label."""
    keys, row, base = attack_keys(metrics), _methods(frame, names), alt.Chart(frame)
    at = number("value", "accuracy (%)", (0, 100))
    ends = {"x": alt.X(**at | {"shorthand": "min(value)"}), "x2": "max(value):Q"}
    marks = base.mark_point(filled=True, size=65, opacity=1).encode(
        x=alt.X(**at), y=row, description="label:N",
        color=alt.Color("metric", **_coloured(keys)), shape=alt.Shape("metric", **_shaped(keys)),
    )  # fmt: skip
    return alt.layer(base.mark_rule(strokeWidth=1, opacity=0.4).encode(y=row, **ends), marks)


def height_of(count: int, row: int = ROW) -> int:
    """Pixels of a chart with so many rows."""
    return 48 + row * count
