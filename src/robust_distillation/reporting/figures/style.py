"""Colours and fonts of the figures, in files and in the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Colour(NamedTuple):
    """One colour of the figures, in the form for files and in the form for the report, such as `Colour("#0072b2",
    "var(--m0)")`.

    Attributes:
        hex: colour in files, as `#rrggbb`.
        css: colour in the report, as a CSS value such as `var(--m0)`. Its value differs on light and dark pages.
    """

    hex: str
    css: str


THEME = {  # CSS variable: value on light pages and in files, value on dark pages
    "page": ("#ffffff", "#14171b"), "ink": ("#1b1f24", "#e6e9ed"), "rule": ("#dde1e6", "#343b44"),
    "accent": ("#0b57a4", "#86b9f4"),
    "m0": ("#0072b2", "#4aa8e8"), "m1": ("#d55e00", "#f5843c"), "m2": ("#00805d", "#3cc79b"),
    "m3": ("#c0569a", "#ea9dcb"), "m4": ("#2f9fd8", "#8bd0f5"), "m5": ("#b07a00", "#e5b64a"),
    "m6": ("#555b66", "#b3bbc6"), "m7": ("#6a3d9a", "#b697e8"),
}  # fmt: skip


def _named(name: str) -> Colour:
    return Colour(THEME[name][0], f"var(--{name})")


PAGE, INK, RULE, ACCENT = map(_named, ("page", "ink", "rule", "accent"))
METHODS = tuple(_named(name) for name in THEME if name[0] == "m")


def shade(percent: int) -> Colour:
    """Mixes the accent colour, a blue, into the background colour of the page. It gives shades of one colour.

    Args:
        percent: part of the accent colour in [0, 100]: 0 is the background, 100 the accent colour.

    Returns:
        The mixed colour, with `hex` (`#rrggbb`, mixed from the colours of light pages) and `css` (a CSS expression that
        mixes the colours of the page).
    """
    channels = zip(*(bytes.fromhex(colour.hex[1:]) for colour in (PAGE, ACCENT)), strict=True)
    mixed = bytes(round(page + (accent - page) * percent / 100) for page, accent in channels)
    return Colour(f"#{mixed.hex()}", f"color-mix(in srgb, var(--accent) {percent}%, var(--page))")


THEMED = {colour.hex: colour.css for colour in (*map(shade, range(1, 101)), PAGE, INK, RULE, ACCENT, *METHODS)}

DIVERGING = ("#2166ac", "#67a9cf", "#d1e5f0", "#f7f7f7", "#fddbc7", "#ef8a62", "#b2182b")  # ColorBrewer RdBu
SEQUENTIAL = ("#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#fde725")  # viridis

# Text in files has one font and one weight: the PDF writer numbers several fonts at random.
FILE_FONT, PAGE_FONT = "Liberation Sans, Arial, Helvetica, sans-serif", "system-ui, sans-serif"


def config(font: str) -> dict[str, Any]:
    """Returns the Vega-Lite entry `config` of a chart, which sets colours, font, font sizes and line widths.

    Args:
        font: font of all texts as a CSS font family: FILE_FONT (`Liberation Sans, Arial, Helvetica, sans-serif`) for
            files, PAGE_FONT (`system-ui, sans-serif`) for the report.

    Returns:
        A dict of JSON values with the keys `background`, `font`, `view`, `axis`, `title`, `line`, `text` and `rule`.
    """
    return {
        "background": None,
        "font": font,
        "view": {"stroke": None},
        "axis": {
            "labelColor": INK.hex, "titleColor": INK.hex, "gridColor": RULE.hex, "tickColor": RULE.hex,
            "domainColor": RULE.hex, "labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal",
            "titlePadding": 8, "labelLimit": 0, "tickCount": 6,
        },
        "title": {
            "color": INK.hex, "subtitleColor": INK.hex, "fontWeight": "normal", "subtitleFontWeight": "normal",
        },
        "line": {"strokeWidth": 1.8}, "text": {"color": INK.hex}, "rule": {"color": INK.hex},
    }  # fmt: skip


def ramp_colours(values: np.ndarray, limits: tuple[float, float], ramp: Sequence[str]) -> np.ndarray:
    """Computes the colours of numbers in a heat map, by linear interpolation between the colours of a ramp.

    Args:
        values: floats of any shape [...]. Values beyond the limits have the colour of the nearer limit.
        limits: values of the first and of the last colour of `ramp`, ascending, such as `(0, 100)`.
        ramp: colours (`#rrggbb`) of evenly spaced values from one limit to the other, at least one, such as SEQUENTIAL.

    Returns:
        uint8 [...,4]: red, green, blue and opacity. The opacity is 255, and 0 where the value is NaN.
    """
    stops = np.array([list(bytes.fromhex(colour[1:])) for colour in ramp])
    places = np.linspace(*limits, len(ramp))
    known = ~np.isnan(values)
    channels = [np.interp(np.where(known, values, limits[0]), places, stops[:, channel]) for channel in range(3)]
    return np.stack([*channels, 255 * known], axis=-1).round().astype(np.uint8)
