"""The graph of the steps that were run, drawn from the inputs and outputs that the jobs' records list."""

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
    """One box of the graph of steps, made by `draw`. A job is one run of a step, such as the training of one student;
    its step is its kind, such as `train-student`. A box is 148 pixels wide and 46 high.

    Attributes:
        step: name of the step.
        about: number of its jobs and the sum of their durations, such as `12 jobs, 3 min 05 s`.
        x: left edge of the box in pixels, from the left edge of the drawing.
        y: upper edge of the box in pixels, from the top of the drawing.
    """

    step: str
    about: str
    x: float
    y: float


@dataclass(frozen=True)
class Drawing:
    """The graph of the steps that were run, as an element of a section of the report. The function `draw` of this
    module makes it.

    A job is one run of a step, such as the training of one student; its step is its kind, such as `train-student`.

    Attributes:
        kind: class constant `dag`, not an argument. The report renders the element by templates/parts/dag.html.jinja.
        nodes: the boxes, one for each step, each with `step` (its name), `about` (number of jobs and time), `x` and `y`
            (pixels).
        paths: the arrows, each as the `d` attribute of an SVG path, such as `M74,48C74,67 74,67 74,81`. An arrow goes
            from the lower edge of the box of one step to the upper edge of the box of a step that reads its files.
        width: width of the drawing in pixels.
        height: height of the drawing in pixels.
        alt: text alternative for screen readers, which lists the arrows as `STEP to STEP`.
        caption: text below the graph: the numbers of jobs and steps.
    """

    kind = "dag"
    nodes: list[Node]
    paths: list[str]
    width: float
    height: float
    alt: str
    caption: str


def section(report: ReportData) -> Section:
    """Makes the report's section with the graph of all steps that were run: which step reads files of which other step.

    A job is one run of a step, such as the training of one student; its step is its kind, such as `train-student`. An
    arrow from A to C is left out if there is a path of several arrows from A to C.

    Args:
        report: data of the experiment, as `reporting.report.report_data.load_report_data(experiment)` returns them.
            Used are `records`: the record of each job, which is the JSON file beside an output: its inputs, settings,
            code hash and hashes of the outputs.

    Returns:
        A `Section` with the `id` `graph`, a `title`, a `lead` (introduction) and `groups` (one group with one
        `Drawing`), which `reporting.report.page.page` renders as HTML.
    """
    records = list(report.records.values())
    arrows = reduced(edges(records))
    lead = (
        "Every job left a record of what it read and made. Steps are drawn below what they read; an arrow that follows "
        "from others is left out."
    )
    return Section("graph", "How it was made", lead, [Group("", [draw(records, arrows)])])


def edges(records: Iterable[dict[str, Any]]) -> set[Edge]:
    """Finds which steps read files of which other steps. A job is one run of a step, such as the training of one
    student; its step is its kind, such as `train-student`.

    Args:
        records: contents of the records of jobs (a record is the JSON file beside an output): dicts with the keys
            `step` (name of the step), `inputs` and `outputs` (dicts from the path of a file to its sha256). They are
            iterated twice, so a generator must not be used.

    Returns:
        Pairs (maker, reader) of names of two different steps, such as ("train-student", "attack"), where a job of the
        reader reads a file that a job of the maker made. Inputs that no record has as output are ignored.
    """
    made = {file: record["step"] for record in records for file in record["outputs"]}
    found = {(made[file], record["step"]) for record in records for file in record["inputs"] if file in made}
    return {(maker, reader) for maker, reader in found if maker != reader}


def layers(steps: Iterable[str], arrows: set[Edge]) -> dict[str, int]:
    """Computes the layer of each step in the drawing of the graph, so that every arrow goes to a layer with a higher
    number.

    Args:
        steps: names of the steps (kinds of jobs), such as `train-student`.
        arrows: pairs (maker, reader) of names of steps, such as ("train-student", "attack"), as `edges` returns them.
            They must have no cycle.

    Returns:
        Name of each step to the number of arrows on the longest path that ends at the step. It is 0 for a step at which
        no arrow ends.

    Raises:
        KeyError: if an arrow contains a name that is not in `steps`.
    """
    steps = list(steps)
    depth = dict.fromkeys(steps, 0)
    for _ in steps:  # a path has no more arrows than there are steps
        for maker, reader in arrows:
            depth[reader] = max(depth[reader], depth[maker] + 1)
    return depth


def reduced(arrows: set[Edge]) -> set[Edge]:
    """Removes the arrows that follow from other arrows (transitive reduction), so that the drawing stays readable.

    An arrow from A to C is removed if there is a path of several arrows from A to C.

    Args:
        arrows: pairs (maker, reader) of names of steps, such as ("train-student", "attack"), as `edges` returns them.
            They must have no cycle. The set is not changed.

    Returns:
        The remaining arrows, as a new set.
    """

    def reaches(start: str, end: str) -> bool:
        return any(b == end or reaches(b, end) for a, b in arrows if a == start)

    return {
        (maker, reader)
        for maker, reader in arrows
        if not any(a == maker and b != reader and reaches(b, reader) for a, b in arrows)
    }


def draw(records: list[dict[str, Any]], arrows: set[Edge]) -> Drawing:
    """Arranges the graph of steps in layers: each step is drawn below the steps whose files it reads.

    Within a layer the steps are sorted by the mean horizontal position of the steps whose files they read, so that few
    arrows cross.

    Args:
        records: contents of the records of all jobs, at least one. A record is the JSON file beside an output: its
            inputs, settings, code hash and hashes of the outputs. Used entries: `step` (name of the step, such as
            `train-student`) and `time` (a dict with `seconds`).
        arrows: pairs (maker, reader) of names of the steps in `records`, such as ("train-student", "attack"), without a
            cycle, as `reduced` returns them.

    Returns:
        The element of the report, with the fields `nodes` (boxes with their places in pixels), `paths` (arrows as SVG
        paths), `width`, `height`, `alt` and `caption`.
    """
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
