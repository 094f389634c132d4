"""What the experiment says of the papers' claims, and methods against each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from robust_distillation.reporting.claims import STRUCTURE
from robust_distillation.reporting.report import charts
from robust_distillation.reporting.report.elements import Cell, Figure, Group, Head, Section, Table, Text, of_pair
from robust_distillation.reporting.report.legend import legend
from robust_distillation.reporting.report.report_data import Material
from robust_distillation.reporting.tables import metric_title

TONES = {"supported": "good", "refuted": "bad", "inconclusive": "unsure"}
ALPHA = 0.05  # of the simultaneous intervals


@dataclass(frozen=True)
class Verdict:
    name: str
    text: str
    verdict: str
    tone: str
    evidence: str
    published: str


@dataclass(frozen=True)
class Verdicts:
    """A part of a section: claims with their verdicts."""

    kind = "verdicts"
    verdicts: list[Verdict]


def claims(material: Material) -> Section | None:
    if "claims" not in material.tables:
        return None
    table = material.tables["claims"]
    counts = table["verdict"].value_counts()
    said = ", ".join(f"{counts[name]} {name}" for name in TONES if name in counts)
    lead = (
        f"{len(table)} claim{'s' * (len(table) != 1)}: {said}. Supported or refuted where the whole interval of the "
        "difference lies on one side; inconclusive where it holds zero."
    )
    verdicts = [_verdict(row) for row in table.itertuples()]
    return Section("claims", "Verdicts", lead, [Group("", [Verdicts(verdicts)])])


def _verdict(row: Any) -> Verdict:
    return Verdict(row.claim, row.text, row.verdict, TONES[row.verdict], evidence(row), _published(row))


def evidence(row: Any) -> str:
    """The interval behind a verdict, the scale that it is for, and what it would take to decide it."""
    if pd.isna(row.difference):
        return f"Nothing was measured that speaks of it: {row.seeds_needed}."
    points = f" on {STRUCTURE}." not in row.text  # else in the unit of the distance
    digits, unit = (2, " points") if points else (3, "")
    said = f"{of_pair(row.teacher, row.student)}: {row.difference:+.{digits}f}{unit}"
    if not pd.isna(row.ci_low):
        said += f", {100 * row.level:g} % interval {row.ci_low:+.{digits}f} to {row.ci_high:+.{digits}f}"
    said += f" ({row.scale})."
    if not pd.isna(row.seeds_needed):
        needed = str(row.seeds_needed)
        said += f" {needed} seeds would decide it." if needed.isdecimal() else f" Seeds that would decide it: {needed}."
    return said


def _published(row: Any) -> str:
    said = "" if pd.isna(row.paper) else f"{row.paper}. "
    if pd.isna(row.published):
        return said and f"The paper: {said}"
    return f"The paper: {said}Printed: {row.published:+.2f} points ({row.mark}; {row.source})."


def comparisons(material: Material) -> Section | None:
    if "comparisons" not in material.tables:
        return None
    table = material.tables["comparisons"]
    shown = table[table["checkpoint"].eq(material.first) & table["metric"].eq(material.strongest)]
    if shown.empty:
        return None
    lead = (
        f"Differences between methods in points of {metric_title(material.strongest)} accuracy at the checkpoint "
        f"{material.first}, on the same images and seeds. Intervals and p are corrected for the number of comparisons: "
        "those of one student hold at once. Where an interval holds zero, the data do not tell which is better."
    )
    groups = []
    for teacher, student in material.matrix.pairs:
        rows = shown[shown["teacher"].eq(teacher) & shown["student"].eq(student)]
        if len(rows):
            title = of_pair(teacher, student)
            groups.append(Group(title, [_forest(rows, material, title), _differences(rows, title)]))
    note = "All metrics and checkpoints are in tables/comparisons.csv beside this page."
    return Section("comparisons", "Methods compared", lead, [*groups, Group("", [Text([note])])])


def _forest(rows: pd.DataFrame, material: Material, title: str) -> Figure:
    """The method that is ahead stands first in each row, its colour is the row's."""
    ahead = rows["difference"] >= 0
    first, second = rows["method"].where(ahead, rows["other"]), rows["other"].where(ahead, rows["method"])
    frame = pd.DataFrame({
        "row": first + " − " + second, "method": first, "value": rows["difference"].abs(),
        "low": rows["ci_low"].where(ahead, -rows["ci_high"]), "high": rows["ci_high"].where(ahead, -rows["ci_low"]),
        "apart": rows["p_adjusted"] < ALPHA,
    }).sort_values("value", ascending=False)  # fmt: skip
    frame["label"] = [f"{row.row}: {row.value:+.2f} ({row.low:+.2f} to {row.high:+.2f})" for row in frame.itertuples()]
    said = "; ".join(frame.loc[frame["apart"], "label"]) or "no two methods are told apart"
    chart = charts.forest(frame, material.matrix.methods, "difference (points)")
    panel = charts.panel(chart, f"Differences that leave zero out: {said}", height=charts.height_of(len(frame), 20))
    keys = [key for key in legend(material.matrix.methods, teacher=False) if key.name in set(first)]
    caption = f"{title}: difference with its simultaneous 95 % interval; hollow where it holds zero."
    return Figure(caption, [panel], keys)


def _differences(rows: pd.DataFrame, title: str) -> Table:
    lines = []
    for row in rows.itertuples():
        apart = row.p_adjusted < ALPHA
        lines.append([
            Cell(row.method), Cell(row.other), Cell(f"{row.difference:+.2f}", row.difference),
            Cell(f"{row.ci_low:+.2f} to {row.ci_high:+.2f}", row.ci_low), Cell(f"{row.p_adjusted:.2g}", row.p_adjusted),
            Cell("told apart" if apart else "not told apart", int(apart), tone="good" if apart else ""),
        ])  # fmt: skip
    heads = [Head("Method", number=False), Head("Less", number=False)]
    heads += [Head(name) for name in ("Difference", "95 % interval", "Adjusted p", "Conclusion")]
    count, seeds, images = len(rows), rows["n_seeds"], rows["n_images"].iloc[0]
    over = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
    return Table(f"{title}: {count} comparisons, {over} seeds, {images} images.", [heads], lines, texts=2)
