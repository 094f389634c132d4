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
WIDTH, MARGIN, GAP = 900, 20, 8  # of a picture
CHIPS, CHIP = 326, 36  # left edge of the chips of a layer; height of a line of them
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
    heights = [max(58, 22 + CHIP * len(_lines(layer.modules))) for layer in found]
    height = 2 * MARGIN + sum(heights) + GAP * (len(found) - 1)
    return svg(WIDTH, height, "The layers of the package", _layers(found, heights, height))


def _lines(modules: tuple[str, ...]) -> list[list[str]]:
    """Break the chips of a layer into lines that fit beside its title."""
    lines, room = [], 0.0
    for module in modules:
        room -= _chip(module) + GAP
        if room < 0:
            lines.append([])
            room = WIDTH - MARGIN - CHIPS - _chip(module) - GAP
        lines[-1].append(module)
    return lines


def _chip(module: str) -> float:
    return len(module) * 13 * WIDE + 18


def _layers(found: list[Layer], heights: list[int], height: float) -> Iterator[str]:
    yield f'<path d="M34 {MARGIN}V{height - MARGIN}" stroke="{GREY}" stroke-width="2" marker-end="url(#tip)"/>'
    yield text(0, 0, "imports", 12, GREY, f'transform="translate(25 {height / 2 + 24:g}) rotate(-90)"')
    top = MARGIN
    for rank, layer, high in zip(range(len(found), 0, -1), found, heights, strict=True):
        yield box(66, top, WIDTH - 66 - MARGIN, high, SHADES[(rank - 1) % len(SHADES)])
        words = textwrap.wrap(layer.text, 36)
        base = top + high / 2 + 4 - 7 * len(words)
        yield text(82, base, str(rank), 14, GREY)
        yield text(104, base, layer.title, 14, INK, 'font-weight="bold"')
        for number, line in enumerate(words):
            yield text(104, base + 16 + 14 * number, line, 11, GREY)
        lines = _lines(layer.modules)
        center = top + high / 2 - CHIP * (len(lines) - 1) / 2
        for line in lines:
            left = CHIPS
            for module in line:
                yield box(left, center - 14, _chip(module), 28, PALE, LINE)
                yield text(left + 9, center + 4.5, module, 13, INK, f'font-family="{MONO}"')
                left += _chip(module) + GAP
            center += CHIP
        top += high + GAP


PICTURES = {"layers": layers_picture}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        (FOLDER / f"{name}.svg").write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
