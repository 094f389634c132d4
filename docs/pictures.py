"""Draws the pictures of docs/architecture.md as SVG: `make docs`.

The layers are those of import-linter's contract in pyproject.toml, which `make lint` checks.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

REPOSITORY = Path(__file__).parents[1]
FOLDER = Path(__file__).with_name("pictures")
INK, PALE, LINE, GREY = "#1b2733", "#ffffff", "#8fa3b5", "#51616f"
SHADES = ("#e3ecf4", "#dceee6", "#fbf1dc", "#f6e4e1", "#ece5f3", "#e2eef0", "#f1efe4", "#e9ecef")  # lowest layer first
SANS, MONO = "Helvetica, Arial, 'DejaVu Sans', sans-serif", "Menlo, Consolas, 'DejaVu Sans Mono', monospace"
WIDTH, MARGIN, ROW, GAP = 900, 20, 66, 8  # of a picture; ROW includes the GAP beneath it
WIDE = 0.602  # width of a monospaced character over its size


class Layer(NamedTuple):
    title: str
    text: str
    modules: tuple[str, ...]


def layers(pyproject: Path = REPOSITORY / "pyproject.toml") -> list[Layer]:
    """Read the layers of the contract, highest first; the comment of a line is `title: text`.

    Raises:
        ValueError: a line of the contract has no such comment.
    """
    contract = re.search(r"^exhaustive = true\nlayers = \[\n(.*?)^\]", pyproject.read_text(), flags=re.M | re.S)
    found = []
    for line in contract[1].splitlines():
        match = re.fullmatch(r' *"([^"]+)",  # ([^:]+): (.+)', line)
        if match is None:
            raise ValueError(f"pyproject.toml: {line.strip()}: end this layer with a comment `# title: text`")
        found.append(Layer(match[2], match[3], tuple(name.strip() for name in re.split("[:|]", match[1]))))
    return found


def text(x: float, y: float, words: str, size: int = 13, color: str = INK, more: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{color}"{more and " " + more}>{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, fill: str, stroke: str = "none") -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="7" fill="{fill}" stroke="{stroke}"/>'


def svg(width: float, height: float, title: str, parts: Iterator[str]) -> str:
    """Return the whole file: `parts` on a white ground, with a title for screen readers."""
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    tip = 'viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="{SANS}">',
        f"<title>{escape(title)}</title>",
        f'<defs><marker id="tip" {tip}><path d="M0 0 10 5 0 10z" fill="{GREY}"/></marker></defs>',
        box(0, 0, width, height, PALE),
        *parts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def layers_picture() -> str:
    """Draw a row for each layer, the highest first."""
    found = layers()
    height = 2 * MARGIN + len(found) * ROW - GAP
    return svg(WIDTH, height, "The layers of the package", _layers(found, height))


def _layers(found: list[Layer], height: float) -> Iterator[str]:
    yield f'<path d="M34 {MARGIN}V{height - MARGIN}" stroke="{GREY}" stroke-width="2" marker-end="url(#tip)"/>'
    yield text(0, 0, "imports", 12, GREY, f'transform="translate(25 {height / 2 + 24:g}) rotate(-90)"')
    for position, layer in enumerate(found):
        top, rank = MARGIN + position * ROW, len(found) - position
        yield box(66, top, WIDTH - 66 - MARGIN, ROW - GAP, SHADES[(rank - 1) % len(SHADES)])
        lines = textwrap.wrap(layer.text, 36)
        base = top + (ROW - GAP) / 2 + 4 - 7 * len(lines)
        yield text(82, base, str(rank), 14, GREY)
        yield text(104, base, layer.title, 14, INK, 'font-weight="bold"')
        for number, line in enumerate(lines):
            yield text(104, base + 16 + 14 * number, line, 11, GREY)
        left, center = 326.0, top + (ROW - GAP) / 2
        for module in layer.modules:
            wide = len(module) * 13 * WIDE + 18
            yield box(left, center - 14, wide, 28, PALE, LINE)
            yield text(left + 9, center + 4.5, module, 13, INK, f'font-family="{MONO}"')
            left += wide + 8


PICTURES = {"layers": layers_picture}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        (FOLDER / f"{name}.svg").write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
