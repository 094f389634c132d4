"""The graph of steps as it really ran, drawn from the records: what each step made, and who read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from robust_distillation.pipeline.text import duration, seconds
from robust_distillation.reporting.report.elements import Group, Section
from robust_distillation.reporting.report.report_data import Material

NODE, GAP, LAYER = (148, 46), 16, 84  # pixels: a box's size, between boxes, from layer to layer
Edge = tuple[str, str]


@dataclass(frozen=True)
class Node:
    step: str
    about: str
    x: float
    y: float


@dataclass(frozen=True)
class Drawing:
    """A part of a section; coordinates in pixels, nodes by their upper left corner, edges as SVG paths."""

    kind = "dag"
    nodes: list[Node]
    paths: list[str]
    width: float
    height: float
    alt: str
    caption: str


def section(material: Material) -> Section:
    records = list(material.records.values())
    arrows = reduced(edges(records))
    lead = (
        "Every job left a record of what it read and made. Steps are drawn below what they read; an arrow that follows "
        "from others is left out."
    )
    return Section("graph", "How it was made", lead, [Group("", [draw(records, arrows)])])


def edges(records: Iterable[dict[str, Any]]) -> set[Edge]:
    """(maker, reader) of every two steps of which one reads what the other made. A step that reads its own kind's
    files is not drawn to itself."""
    made = {file: record["step"] for record in records for file in record["outputs"]}
    found = {(made[file], record["step"]) for record in records for file in record["inputs"] if file in made}
    return {(maker, reader) for maker, reader in found if maker != reader}


def layers(steps: Iterable[str], arrows: set[Edge]) -> dict[str, int]:
    """The longest path that leads to each step."""
    steps = list(steps)
    depth = dict.fromkeys(steps, 0)
    for _ in steps:  # a path has no more arrows than there are steps
        for maker, reader in arrows:
            depth[reader] = max(depth[reader], depth[maker] + 1)
    return depth


def reduced(arrows: set[Edge]) -> set[Edge]:
    """Without arrows that follow from others."""

    def reaches(start: str, end: str) -> bool:
        return any(b == end or reaches(b, end) for a, b in arrows if a == start)

    return {
        (maker, reader)
        for maker, reader in arrows
        if not any(a == maker and b != reader and reaches(b, reader) for a, b in arrows)
    }


def draw(records: list[dict[str, Any]], arrows: set[Edge]) -> Drawing:
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
    said = "; ".join(f"{maker} to {reader}" for maker, reader in sorted(arrows))
    return Drawing(
        nodes, [_path(places[maker], places[reader]) for maker, reader in sorted(arrows)], width,
        len(rows) * LAYER - LAYER + NODE[1] + 4, f"Steps and what reads what: {said}",
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
