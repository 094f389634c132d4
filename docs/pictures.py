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
    tip = 'viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto-start-reverse"'
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


class Node(NamedTuple):
    """A box of a flow.

    Args:
        column: 0, 1 or 2, from the left.
        row: from the top, counted from 0.
        title: what it is.
        where: `module` or `module:name` in the package, or a file that a step makes.
        text: what it does, in lines.
        kind: `code`, `file` or `check`, which decides the color.
        rows: that it is high.
    """

    column: int
    row: float
    title: str
    where: str
    text: str
    kind: str = "code"
    rows: int = 1


class Flow(NamedTuple):
    """A picture of nodes and arrows: `A -> B`, or `A <-> B` for a call and its answer."""

    title: str
    nodes: dict[str, Node]
    arrows: tuple[str, ...]


BATCH = Flow(
    "The way of a batch, from images to the loss",
    {
        "images": Node(0, 0, "training images", "data.dataset:Dataset", "uint8 [N,C,H,W], labels", "file"),
        "batch": Node(1, 0, "batch", "training.batches:Batch", "x in [0,1] [B,C,H,W], labels, ids"),
        "views": Node(2, 0, "order and views", "data.views:ViewScheme", "functions of seed and epoch alone"),
        "cached": Node(0, 1, "teacher on clean views", "cache.store:CachedValues", "T(x), read from the cache", "file"),
        "live": Node(0, 2, "teacher on other images", "training.teacher:Teacher", "T(x'), differentiable in x'"),
        "method": Node(
            1, 1, "method", "methods.contract:Method",
            "loss(step) calls, in its own order:\nstep.cached(), step.teacher[role](x'),\n"
            "step.attack(objective, ...),\nstep.student(x, train=True)", rows=2,
        ),
        "attack": Node(2, 1, "inner maximisation", "attacks.core:pgd", "x' that maximises the objective"),
        "student": Node(2, 2, "student", "training.step:TrainedNetwork", "logits, features"),
        "terms": Node(0, 3, "terms", "methods.contract:Term", "named values [B] with weights"),
        "loss": Node(1, 3, "loss", "training.reduction:reduce", "KL scale, mean over the whole batch"),
        "update": Node(2, 3, "update", "training.trainer:Trainer", "backward, optimizer step"),
    },
    (
        "images -> batch", "views -> batch", "batch -> method", "cached <-> method", "live <-> method",
        "attack <-> method", "student <-> method", "attack <-> student", "method -> terms", "terms -> loss",
        "loss -> update",
    ),
)  # fmt: skip
NUMBER = Flow(
    "The way of a number, from an attack to the report and the audit",
    {
        "checkpoint": Node(1, 0, "checkpoint", "students/.../best.safetensors", "one of each seed", "file"),
        "attack": Node(1, 1, "attack", "evaluation.attack:attack_run", "in blocks of test images"),
        "outcomes": Node(1, 2, "outcomes", "outcomes/.../seed-N.parquet", "per image: still right?", "file"),
        "accuracy": Node(1, 3, "accuracy", "statistics.accuracies:summary", "mean and sd over the seeds"),
        "table": Node(1, 4, "table cell", "tables/main.csv", "teacher, student, method, metric", "file"),
        "report": Node(2, 5, "report", "reporting.report.page", "report.html"),
        "paired": Node(2, 3, "comparison", "statistics.comparing:paired", "two methods on the same images"),
        "claims": Node(2, 4, "verdict", "reporting.claims", "supported, refuted, inconclusive"),
        "mlflow": Node(2, 2, "MLflow", "tracking.runs", "a run of every student"),
        "record": Node(0, 1, "record", "pipeline.record:Recorder", "hashes, settings, code of each step", "check"),
        "index": Node(0, 2, "index", "provenance.json", "hashes of all files and records", "check"),
        "lock": Node(0, 3, "commit", "dvc.lock", "hashes that git keeps", "check"),
        "audit": Node(0, 4, "audit", "audit.audit", "hashes again, makes the cell again", "check"),
        "explain": Node(0, 5, "explain", "audit.lineage", "the cell back to data and code", "check"),
    },
    (
        "checkpoint -> attack", "attack -> outcomes", "outcomes -> accuracy", "accuracy -> table", "table -> report",
        "outcomes -> paired", "paired -> claims", "claims -> report", "outcomes -> mlflow", "attack -> record",
        "record -> index", "index -> lock", "lock -> audit", "table -> audit", "table -> explain",
    ),
)  # fmt: skip
COLORS = {"code": SHADES[0], "file": SHADES[2], "check": SHADES[1]}
BOX, HIGH, STEP = 252, 62, 90  # width and height of a node; distance of two rows


def flow_picture(flow: Flow) -> str:
    """Draw the nodes of a flow in their rows and columns, and the arrows from edge to edge."""
    height = max(_frame(node)[3] for node in flow.nodes.values()) + MARGIN
    return svg(WIDTH, height, flow.title, _flow(flow))


def _frame(node: Node) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom."""
    left, top = MARGIN + node.column * (WIDTH - 2 * MARGIN - BOX) / 2, MARGIN + node.row * STEP
    return left, top, left + BOX, top + HIGH + (node.rows - 1) * STEP


def _flow(flow: Flow) -> Iterator[str]:
    for arrow in flow.arrows:
        first, kind, last = arrow.split()
        yield _arrow(_frame(flow.nodes[first]), _frame(flow.nodes[last]), both=kind == "<->")
    for node in flow.nodes.values():
        left, top, _, bottom = _frame(node)
        yield box(left, top, BOX, bottom - top, COLORS[node.kind], LINE)
        yield text(left + 12, top + 20, node.title, 13, INK, 'font-weight="bold"')
        yield text(left + 12, top + 37, node.where.replace(":", "."), 11, INK, f'font-family="{MONO}"')
        for number, line in enumerate(node.text.splitlines()):
            yield text(left + 12, top + 53 + 18 * number, line, 11, GREY)


def _arrow(first: tuple[float, ...], last: tuple[float, ...], both: bool) -> str:
    """Draw a straight line between boxes beside or above each other, else one with two corners."""
    top, bottom = max(first[1], last[1]), min(first[3], last[3])
    if top < bottom:
        start, end = (first[2], last[0]) if first[0] < last[0] else (first[0], last[2])
        path = f"M{start:g} {(top + bottom) / 2:g}H{end:g}"
    else:
        start, end = (first[3], last[1]) if first[1] < last[1] else (first[1], last[3])
        x, u = (first[0] + first[2]) / 2, (last[0] + last[2]) / 2
        path = f"M{x:g} {start:g}V{end:g}" if x == u else f"M{x:g} {start:g}V{(start + end) / 2:g}H{u:g}V{end:g}"
    tips = ' marker-start="url(#tip)"' * both + ' marker-end="url(#tip)"'
    return f'<path d="{path}" stroke="{GREY}" stroke-width="1.6" fill="none"{tips}/>'


PICTURES = {
    "layers": layers_picture,
    "batch": lambda: flow_picture(BATCH),
    "number": lambda: flow_picture(NUMBER),
}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        (FOLDER / f"{name}.svg").write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
