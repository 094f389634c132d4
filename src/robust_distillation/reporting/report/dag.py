"""The graph of the steps as they ran, drawn from the inputs and outputs of the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from robust_distillation.pipeline.text import duration, seconds
from robust_distillation.reporting.report.elements import Group, Section
from robust_distillation.reporting.report.report_data import ReportData

NODE, GAP, LAYER = (148, 46), 16, 84  # pixels: a box's size, between boxes, from layer to layer
Edge = tuple[str, str]


@dataclass(frozen=True)
class Node:
    """A box of the graph.

    Attributes:
        step: its name.
        about: number of its jobs, and their time.
        x: left edge in pixels.
        y: upper edge in pixels.
    """

    step: str
    about: str
    x: float
    y: float


@dataclass(frozen=True)
class Drawing:
    """The graph as a part of a section.

    Attributes:
        nodes: the boxes.
        paths: the arrows as SVG paths.
        width: in pixels.
        height: in pixels.
        alt: text alternative.
        caption: text below the graph.
    """

    kind = "dag"
    nodes: list[Node]
    paths: list[str]
    width: float
    height: float
    alt: str
    caption: str


def section(report: ReportData) -> Section:
    """Returns the graph of all steps."""
    records = list(report.records.values())
    arrows = reduced(edges(records))
    lead = (
        "Every job left a record of what it read and made. Steps are drawn below what they read; an arrow that follows "
        "from others is left out."
    )
    return Section("graph", "How it was made", lead, [Group("", [draw(records, arrows)])])


def edges(records: Iterable[dict[str, Any]]) -> set[Edge]:
    """Returns (maker, reader) for every two steps of which the second reads a file of the first.

    A step that reads files of its own kind has no arrow to itself.
    """
    made = {file: record["step"] for record in records for file in record["outputs"]}
    found = {(made[file], record["step"]) for record in records for file in record["inputs"] if file in made}
    return {(maker, reader) for maker, reader in found if maker != reader}


def layers(steps: Iterable[str], arrows: set[Edge]) -> dict[str, int]:
    """Returns the length of the longest path to each step."""
    steps = list(steps)
    depth = dict.fromkeys(steps, 0)
    for _ in steps:  # a path has no more arrows than there are steps
        for maker, reader in arrows:
            depth[reader] = max(depth[reader], depth[maker] + 1)
    return depth


def reduced(arrows: set[Edge]) -> set[Edge]:
    """Returns the arrows that do not follow from others (transitive reduction)."""

    def reaches(start: str, end: str) -> bool:
        return any(b == end or reaches(b, end) for a, b in arrows if a == start)

    return {
        (maker, reader)
        for maker, reader in arrows
        if not any(a == maker and b != reader and reaches(b, reader) for a, b in arrows)
    }


def draw(records: list[dict[str, Any]], arrows: set[Edge]) -> Drawing:
    """Returns the graph: each step below the steps that it reads from."""
    jobs = Counter(record["step"] for record in records)
    spent: Counter[str] = Counter()
    for record in records:
        spent[record["step"]] += seconds(record)
    depth = layers(jobs, arrows)
    rows = [[step for step in jobs if depth[step] == level] for level in range(max(depth.values()) + 1)]
    width = max(len(row) * (NODE[0] + GAP) for row in rows)
    places: dict[str, tuple[float, float]] = {}
    for level, row in enumerate(rows):
        row.sort(key=lambda step: _middle(step, arrows, places))  # beneath what it reads: fewer crossings
        left = (width - len(row) * (NODE[0] + GAP) + GAP) / 2
        places |= {step: (left + place * (NODE[0] + GAP), 2 + level * LAYER) for place, step in enumerate(row)}
    nodes = [Node(step, f"{_jobs(jobs[step])}, {duration(spent[step])}", *places[step]) for step in places]
    text = "; ".join(f"{maker} to {reader}" for maker, reader in sorted(arrows))
    return Drawing(
        nodes, [_path(places[maker], places[reader]) for maker, reader in sorted(arrows)], width,
        len(rows) * LAYER - LAYER + NODE[1] + 4, f"Steps and what reads what: {text}",
        f"{sum(jobs.values())} jobs in {len(jobs)} steps, with the time of their jobs together.",
    )  # fmt: skip


def _middle(step: str, arrows: set[Edge], places: dict[str, tuple[float, float]]) -> float:
    above = [places[maker][0] for maker, reader in arrows if reader == step and maker in places]
    return sum(above) / len(above) if above else 0


def _jobs(count: int) -> str:
    return f"{count} job{'s' * (count != 1)}"


def _path(above: tuple[float, float], below: tuple[float, float]) -> str:
    """A curve from the lower edge of one box to the upper edge of the other."""
    x, y, u, v = above[0] + NODE[0] / 2, above[1] + NODE[1], below[0] + NODE[0] / 2, below[1]
    bend = (v - y) / 2
    return f"M{x:g},{y:g}C{x:g},{y + bend:g} {u:g},{v - bend:g} {u:g},{v - 5:g}"
