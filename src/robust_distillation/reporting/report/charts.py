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

from robust_distillation.reporting.report.marks import SHAPES, TEACHER, legend
from robust_distillation.reporting.report.parts import Key, Panel

WIDTH, HEIGHT, ROW = 340, 240, 24  # pixels
CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "currentColor", "titleColor": "currentColor", "gridColor": "var(--rule)", "tickColor": "var(--rule)",
        "domainColor": "var(--rule)", "labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal",
        "labelLimit": 150, "tickCount": 6,
    },
    "line": {"strokeWidth": 1.8}, "text": {"color": "currentColor"}, "rule": {"color": "currentColor"},
}  # fmt: skip


def panel(chart: alt.Chart | alt.LayerChart, alternative: str, title: str = "", height: int = HEIGHT) -> Panel:
    """`alternative` says in words what the chart shows."""
    sized = chart.properties(width=WIDTH, height=height, autosize=alt.AutoSizeParams(type="fit", contains="padding"))
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


def colour(names: list[str], by: str = "method") -> alt.Color:
    keys = {key.name: key for key in legend(names)}
    scale = alt.Scale(domain=list(keys), range=[key.colour for key in keys.values()])
    return alt.Color(by, type="nominal", scale=scale, legend=None)


def shape(names: list[str], by: str = "method") -> alt.Shape:
    keys = {key.name: key for key in legend(names)}
    scale = alt.Scale(domain=list(keys), range=[key.path for key in keys.values()])
    return alt.Shape(by, type="nominal", scale=scale, legend=None)


def number(name: str, title: str, domain: tuple[float, float] | None = None, **more: Any) -> dict[str, Any]:
    """An axis of numbers, from a domain that is not zero unless it says so."""
    scale = alt.Scale(domain=list(domain), nice=False) if domain else alt.Scale(zero=False)
    return {"shorthand": name, "type": "quantitative", "title": title, "scale": scale, **more}


def lines(
    frame: pd.DataFrame, names: list[str], x: tuple[str, str], y: tuple[str, str], label: str, band: bool = True
) -> alt.LayerChart:
    """A line per method with its marks, and its range over the seeds shaded.

    frame: method, the columns of x and y (name and title), low, high, and `label`, a sentence about each point.
    """
    at = alt.X(
        **number(*x, axis=alt.Axis(grid=False, **({"format": "d", "tickMinStep": 1} if x[0] == "epoch" else {})))
    )
    value = alt.Y(**number(*y, domain=(0, 100)))
    base = alt.Chart(frame)
    line = base.mark_line().encode(x=at, y=value, color=colour(names))
    points = base.mark_point(filled=True, opacity=1, size=26).encode(
        x=at, y=value, color=colour(names), shape=shape(names), description=f"{label}:N"
    )
    if not band or frame["low"].equals(frame["high"]):
        return alt.layer(line, points)
    area = base.mark_area(opacity=0.13).encode(x=at, y=alt.Y("low:Q"), y2="high:Q", color=colour(names))
    return alt.layer(area, line, points)


def scatter(frame: pd.DataFrame, names: list[str], x: tuple[str, str], y: tuple[str, str]) -> alt.LayerChart:
    """A small mark per seed and a large one for the mean: columns method, x, y, seed (missing: the mean), label."""
    encoded = {
        "x": alt.X(**number(*x)), "y": alt.Y(**number(*y)), "color": colour(names), "shape": shape(names),
        "description": "label:N",
    }  # fmt: skip
    seeds = alt.Chart(frame[frame["seed"].notna()]).mark_point(filled=True, size=22, opacity=0.45).encode(**encoded)
    means = alt.Chart(frame[frame["seed"].isna()]).mark_point(
        filled=True, size=110, opacity=1, stroke="var(--page)", strokeWidth=1
    )
    return alt.layer(seeds, means.encode(**encoded))


def dots(
    frame: pd.DataFrame, names: list[str], title: str, domain: tuple[float, float] | None = None
) -> alt.LayerChart:
    """A row per method: a large mark for the mean, its interval as a bar, a small mark per seed.

    frame: method, value, low, high (missing: none), seed (missing: the mean), label. A teacher comes first.
    """
    shown = [name for name in [TEACHER, *names] if name in set(frame["method"])]
    row = alt.Y("method:N", sort=shown, title=None, axis=alt.Axis(domain=False, ticks=False))
    encoded = {
        "x": alt.X(**number("value", title, domain)), "y": row, "color": colour(names), "shape": shape(names),
        "description": "label:N",
    }  # fmt: skip
    means, seeds = frame[frame["seed"].isna()], frame[frame["seed"].notna()]
    layers = [alt.Chart(seeds).mark_point(filled=True, size=16, opacity=0.55, yOffset=8).encode(**encoded)]
    if means["low"].notna().any():
        bar = alt.Chart(means.dropna(subset=["low"])).mark_rule(strokeWidth=2)
        layers.append(bar.encode(x=alt.X("low:Q"), x2="high:Q", y=row, color=colour(names)))
    layers.append(alt.Chart(means).mark_point(filled=True, size=75, opacity=1).encode(**encoded))
    return alt.layer(*layers)


def height_of(rows: int) -> int:
    return 48 + ROW * rows


def attack_keys(metrics: list[str]) -> list[Key]:
    """From clean to the strongest: from pale to dark, each with a shape of its own."""
    last = max(len(metrics) - 1, 1)
    return [
        Key(
            name,
            f"color-mix(in srgb, var(--accent) {25 + round(75 * place / last)}%, var(--page))",
            SHAPES[place % len(SHAPES)],
        )
        for place, name in enumerate(metrics)
    ]


def by_attack(frame: pd.DataFrame, names: list[str], metrics: list[str]) -> alt.LayerChart:
    """A row per method, a mark per attack: columns method, metric, value, label."""
    keys = attack_keys(metrics)
    shown = [name for name in [TEACHER, *names] if name in set(frame["method"])]
    row = alt.Y("method:N", sort=shown, title=None, axis=alt.Axis(domain=False, ticks=False))
    base = alt.Chart(frame)
    ranges = base.mark_rule(strokeWidth=1, opacity=0.4).encode(
        x=alt.X("min(value):Q", scale=alt.Scale(domain=[0, 100])), x2="max(value):Q", y=row
    )
    marks = base.mark_point(filled=True, size=65, opacity=1).encode(
        x=alt.X(**number("value", "accuracy (%)", (0, 100))), y=row, description="label:N",
        color=alt.Color("metric:N", scale=alt.Scale(domain=metrics, range=[k.colour for k in keys]), legend=None),
        shape=alt.Shape("metric:N", scale=alt.Scale(domain=metrics, range=[k.path for k in keys]), legend=None),
    )  # fmt: skip
    return alt.layer(ranges, marks)
