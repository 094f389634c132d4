"""A figure as data, its panels as SVG for the report, and its files as SVG, PNG and PDF."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import vl_convert
from markupsafe import Markup

from robust_distillation.files import atomic_write
from robust_distillation.layout import DRAWN
from robust_distillation.reporting.figures.legend import Key
from robust_distillation.reporting.figures.style import FILE_FONT, PAGE, PAGE_FONT, RULE, THEMED, config

WIDTH, HEIGHT, ROW = 340, 240, 24  # pixels of a panel on the page: as wide as a phone; of a row of methods
RESOLUTION = 2  # pixels of the PNG per pixel of the SVG
AXIS = 60  # pixels of a panel's width that its axis takes on the page
COLUMN = 24  # names in a column of the legend
LETTERS = 110  # in a line of a title of two panels


@dataclass(frozen=True)
class Panel:
    """One chart within a `Figure`, with its heading, its size and its description in words.

    Attributes:
        chart: the Vega-Altair chart, without a size, a title or a legend.
        alt: text alternative for screen readers, such as `Accuracy in percent: rslad 49.0, ard 45.1`.
        title: heading above the panel, such as `AutoAttack`; empty for none. Newlines in it start new lines in the
            files.
        width: width in pixels in the report, axes included.
        height: height in pixels in the report, axes included.
        axis: part of `height`, in pixels, that the horizontal axis with its labels takes. In the files the drawing area
            is `height - axis` high, and the axis is added below it.
    """

    chart: alt.Chart | alt.LayerChart
    alt: str
    title: str = ""
    width: int = WIDTH
    height: int = HEIGHT
    axis: int = 40

    @property
    def share(self) -> float:
        """The width of the panel divided by the default width of 340 pixels, for the layout of the page and of the
        files.
        """
        return self.width / WIDTH

    @property
    def svg(self) -> Markup:
        """The chart as an SVG element for the report. Its colours are CSS variables, which differ on light and dark
        pages.
        """
        fit = alt.AutoSizeParams(type="fit", contains="padding")
        # The reader's font may be wider than the one that Vega measures with.
        padding = {"left": 14, "right": 8, "top": 4, "bottom": 4}
        sized = self.chart.properties(width=self.width, height=self.height, autosize=fit, padding=padding)
        return Markup(_themed(_svg(sized, PAGE_FONT)))  # Vega escapes the names in it


@dataclass(frozen=True)
class Figure:
    """Charts beside each other with a common title, caption and legend.

    The functions of this package make it, such as `figures.overview.overview`. `figures.figure.save` writes it to
    files, and it is also an element of a section of the report.

    Attributes:
        kind: class constant `figure`, not an argument. The report renders the element by
            templates/parts/figure.html.jinja.
        title: heading in the files, and beginning of the caption in the report, such as `Student small, teacher wide:
            accuracy`.
        caption: what the marks mean, in one or two sentences.
        panels: the charts, from left to right. A `Panel` has `chart` (a Vega-Altair chart), `alt` (description in
            words), `title`, and `width`, `height` and `axis` in pixels.
        legend: entries of the legend, from top to bottom, each with `name`, `colour` and `path` (shape); empty if the
            axes name the marks.
        columns: number of panels beside each other in the files. The next panels start a new row.
    """

    kind = "figure"  # its template in the report
    title: str
    caption: str
    panels: list[Panel]
    legend: list[Key] = field(default_factory=list)
    columns: int = 2


def save(figure: Figure, stem: Path) -> None:
    """Writes a figure as STEM.svg, STEM.png and STEM.pdf.

    Missing folders are created, and existing files are replaced. The PNG has two pixels per pixel of the SVG. The same
    figure gives the same bytes. For the PDF this holds only if the font Liberation Sans, which the drawing library
    contains, has all characters of the texts: with several fonts, the PDF writer numbers them at random.

    Args:
        figure: the figure (title, caption, panels, legend), as functions such as `figures.overview.overview` return it.
        stem: path of the files without the ending, such as `results/digits/figures/wide/small/overview`.
    """
    svg = _svg(_composed(figure), FILE_FONT)
    contents = {
        "svg": svg.encode(),
        "png": vl_convert.svg_to_png(svg, scale=RESOLUTION),
        "pdf": _pdf(svg),
    }
    for suffix in DRAWN:
        with atomic_write(stem.with_name(f"{stem.name}.{suffix}")) as temporary:
            temporary.write_bytes(contents[suffix])


def _composed(figure: Figure) -> alt.TopLevelMixin:
    """Returns all panels beside each other, the legend on the right, the title and the caption above."""
    panels = [_sized(panel) for panel in figure.panels]
    body = alt.concat(*panels, columns=figure.columns, spacing=16)
    if figure.legend:
        body = alt.hconcat(body, _legend(figure.legend), spacing=14)
    width = LETTERS * sum(panel.share for panel in figure.panels[: figure.columns]) / 2
    title = alt.TitleParams(
        textwrap.wrap(figure.title, max(int(width * 0.8), 60)), fontSize=14, anchor="start", offset=14,
        subtitle=textwrap.wrap(figure.caption, max(int(width), 75)), subtitleFontSize=11,
    )  # fmt: skip
    return body.properties(title=title, padding=8, background=PAGE.hex)


def _sized(panel: Panel) -> alt.Chart | alt.LayerChart:
    chart = panel.chart.properties(width=panel.width - AXIS * panel.share, height=panel.height - panel.axis)
    if not panel.title:
        return chart
    lines = [line for part in panel.title.split("\n") for line in wrapped(part, int(panel.width / 7)) or [""]]
    return chart.properties(title=alt.TitleParams(lines, fontSize=12, anchor="start"))


def wrapped(text: str, width: int) -> list[str]:
    """Breaks a text into lines at spaces and after hyphens, for names and titles in charts. A longer word is cut.

    Args:
        text: the text. Newlines in it count as spaces.
        width: maximum number of characters in a line, at least 1.

    Returns:
        The lines; none for an empty text.
    """
    return textwrap.wrap(text, width)


def _legend(keys: list[Key]) -> alt.LayerChart:
    """Returns the legend as a chart: a mark and a name per line."""
    frame = pd.DataFrame([{"name": key.name, "line": i} for i, key in enumerate(keys)])
    y = alt.Y("line:Q", axis=None, scale=alt.Scale(domain=[-0.5, len(keys) - 0.5], reverse=True, nice=False))
    base = alt.Chart(frame).encode(y=y, x=alt.value(6))
    marks = base.mark_point(filled=True, opacity=1, size=60, stroke=RULE.hex, strokeWidth=0.5).encode(
        color=alt.Color("name:N", scale=scale(keys, [key.colour.hex for key in keys]), legend=None),
        shape=alt.Shape("name:N", scale=scale(keys, [key.path for key in keys]), legend=None),
    )
    names = base.mark_text(align="left", dx=10, fontSize=11).encode(text="name:N")
    return alt.layer(marks, names).properties(width=12, height=18 * len(keys))


def scale(keys: list[Key], values: list[str]) -> alt.Scale:
    """Makes the Vega-Altair scale that gives each name of a legend its colour or its shape.

    Args:
        keys: entries of a legend (`name`, `colour`, `path`), as `figures.legend.method_keys` returns them. Their names
            are the domain of the scale.
        values: colour (`#rrggbb`) or shape (SVG path such as `M-1,-1H1V1H-1Z`) of each key, in the same order.

    Returns:
        The scale for an encoding such as `alt.Color(..., scale=scale)`.
    """
    return alt.Scale(domain=[key.name for key in keys], range=values)


def _svg(chart: Any, font: str) -> str:
    """Returns the drawing without what only interaction needs, with coordinates to a tenth of a pixel, and with the
    descriptions of marks as their titles, which browsers show beside the pointer."""
    svg = vl_convert.vegalite_to_svg(chart.to_dict() | {"config": config(font)})
    svg = re.sub(r' (role|aria-roledescription|aria-hidden|pointer-events)="[^"]*"', "", svg)
    svg = re.sub(r'<(path|text) aria-label="([^"]*)"([^>]*?)(/>|>)', _with_title, svg)
    svg = re.sub(r' aria-label="[^"]*"', "", svg)
    coordinates = re.compile(r' (d|transform|x2?|y2?|width|height)="[^"]*"')
    return coordinates.sub(lambda attribute: re.sub(r"-?\d+\.\d\d+", _rounded, attribute[0]), svg)


def _with_title(element: re.Match[str]) -> str:
    name, description, attributes, end = element.groups()
    title = f"<title>{description}</title>"
    return f"<{name}{attributes}>{title}" + (f"</{name}>" if end == "/>" else "")


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.1f}".removesuffix(".0")


def _pdf(svg: str) -> bytes:
    """Returns the drawing as PDF. Its writer lists a page's resources in a random order; here they are sorted."""
    resources = re.compile(rb"(?:^ +/[a-z]+\d+ \d+ 0 R\n){2,}", re.MULTILINE)
    return resources.sub(lambda lines: b"".join(sorted(lines[0].splitlines(True))), vl_convert.svg_to_pdf(svg))


def _themed(svg: str) -> str:
    """Replaces the colours of files by the page's CSS variables."""
    return re.sub(
        r'(fill|stroke)="(#[0-9a-f]{6})"', lambda found: f'{found[1]}="{THEMED.get(found[2], found[2])}"', svg
    )
