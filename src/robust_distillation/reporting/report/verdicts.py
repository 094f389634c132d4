"""The sections on the papers' claims, and on methods compared with each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from robust_distillation.comparison import Comparison
from robust_distillation.reporting.claims import in_points
from robust_distillation.reporting.comparisons import at_headline, title
from robust_distillation.reporting.figures.differences import differences
from robust_distillation.reporting.report.elements import Cell, Group, Head, Section, Table, Text
from robust_distillation.reporting.report.report_data import ReportData
from robust_distillation.reporting.table_spec import metric_title
from robust_distillation.statistics.estimates import POWER
from robust_distillation.statistics.intervals import ALPHA

TONES = {"supported": "good", "refuted": "bad", "inconclusive": "unsure"}


@dataclass(frozen=True)
class Verdict:
    """The verdict on one claim for one teacher and student, with its evidence, as texts for the report.

    A claim is a sentence of the experiment file such as `rslad > ard on autoattack`, judged by the results. The
    function `claims` of this module makes these objects from the rows of tables/claims.csv.

    Attributes:
        name: key of the claim in the experiment file, such as `rslad-ard`.
        text: the sentence of the claim.
        verdict: `supported`, `refuted` or `inconclusive`.
        tone: CSS class that colours the verdict: `good` for supported, `bad` for refuted, `unsure` for inconclusive.
        evidence: the measured difference with its confidence interval, in sentences such as `Student small, teacher
            wide: +1.20 points, 98.75 % interval -0.50 to +2.90 (digits, 300 test images, 3 seeds).`, as the function
            `evidence` returns them.
        published: the paper's statement and printed difference, as a text that begins with `The paper:`. Empty if
            neither is known.
    """

    name: str
    text: str
    verdict: str
    tone: str
    evidence: str
    published: str


@dataclass(frozen=True)
class Verdicts:
    """A list of verdicts on claims, as an element of a section of the report. The function `claims` of this module
    makes it.

    A claim is a sentence of the experiment file such as `rslad > ard on autoattack`, judged by the results.

    Attributes:
        kind: class constant `verdicts`, not an argument. The report renders the element by
            templates/parts/verdicts.html.jinja.
        verdicts: the verdicts, from top to bottom, each with the fields `name`, `text`, `verdict`, `tone`, `evidence`
            and `published`.
    """

    kind = "verdicts"
    verdicts: list[Verdict]


def claims(report: ReportData) -> Section | None:
    """Makes the report's section with the verdicts on the claims of the experiment file.

    A claim is a sentence such as `rslad > ard on autoattack`, judged by the results: supported, refuted or
    inconclusive. The section contains one verdict for each row of tables/claims.csv, in the order of that file: a row
    is about one claim, one teacher and one student. The introduction states how many claims are supported, refuted and
    inconclusive.

    Args:
        report: data of the experiment, as `reporting.report.report_data.load_report_data(experiment)` returns them.
            Used is `tables["claims"]`, if it exists.

    Returns:
        A `Section` with the `id` `claims`, a `title`, a `lead` (introduction) and `groups` (tables, figures and other
        elements), which `reporting.report.page.page` renders as HTML. None if the experiment file has no claims.
    """
    if "claims" not in report.tables:
        return None
    table = report.tables["claims"]
    counts = table["verdict"].value_counts()
    text = ", ".join(f"{counts[name]} {name}" for name in TONES if name in counts)
    lead = (
        f"{len(table)} claim{'s' * (len(table) != 1)}: {text}. Supported or refuted where the whole interval of the "
        "difference lies on one side of the claim's margin (zero unless it names one); inconclusive where the margin "
        "lies in the interval."
    )
    judged = [_verdict(row) for row in table.itertuples()]
    return Section("claims", "Verdicts", lead, [Group("", [Verdicts(judged)])])


def _verdict(row: Any) -> Verdict:
    return Verdict(row.claim, row.text, row.verdict, TONES[row.verdict], evidence(row), _published(row))


def evidence(row: Any) -> str:
    """Describes the measured difference behind a verdict in one or two sentences.

    An example: `Student small, teacher wide: +1.20 points, 98.75 % interval -0.50 to +2.90 (digits, 300 test images,
    student small (convnet, width 8), controlled protocol, 3 seeds). 12 seeds would decide it with a chance of 80%.`

    - Differences of accuracies have the unit points (percentage points) and two decimals. Differences of distances,
      which are claims on a metric such as `structure.feature_distance`, have three decimals and no unit.
    - If `difference` is missing (NaN), the text is only the reason, which the field `seeds_needed` then contains.
    - If `ci_low` is missing (one seed), the interval is left out.
    - If `seeds_needed` is missing (the claim is decided), the last sentence is left out.

    Args:
        row: a row of tables/claims.csv as a named tuple of `DataFrame.itertuples()`. Used fields: `text`, `teacher`,
            `student`, `difference`, `ci_low`, `ci_high`, `level` (of the interval, a fraction such as 0.9875), `scale`
            and `seeds_needed`.

    Returns:
        The sentences.
    """
    if pd.isna(row.difference):
        return f"Nothing was measured that speaks of it: {row.seeds_needed}."
    points = in_points(row)
    digits, unit = (2, " points") if points else (3, "")
    text = f"{Comparison(row.teacher, row.student).label}: {row.difference:+.{digits}f}{unit}"
    if not pd.isna(row.ci_low):
        text += f", {100 * row.level:g} % interval {row.ci_low:+.{digits}f} to {row.ci_high:+.{digits}f}"
    text += f" ({row.scale})."
    if not pd.isna(row.seeds_needed):
        needed = str(row.seeds_needed)
        text += (
            f" {needed} seeds would decide it with a chance of {POWER:.0%}."
            if needed.isdecimal()
            else f" Seeds that would decide it: {needed}."
        )
    return text


def _published(row: Any) -> str:
    text = "" if pd.isna(row.paper) else f"{row.paper}. "
    if pd.isna(row.published):
        return text and f"The paper: {text}"
    return f"The paper: {text}Printed: {row.published:+.2f} points ({row.mark}; {row.source})."


def comparisons(report: ReportData) -> Section | None:
    """Makes the report's section that compares distillation methods with each other.

    For each teacher and student it contains a figure and a table of the differences in accuracy, with simultaneous 95 %
    confidence intervals (Bonferroni) and adjusted p values (Holm). Figure and table are about the strongest attack (the
    last of `evaluation.attacks` in the experiment file) and the first of `evaluation.checkpoints`.

    Args:
        report: data of the experiment, as `reporting.report.report_data.load_report_data(experiment)` returns them.
            Used are `tables["comparisons"]` and `spec` (pairs of teacher and student).

    Returns:
        A `Section` with the `id` `comparisons`, a `title`, a `lead` (introduction) and `groups` (tables, figures and
        other elements), which `reporting.report.page.page` renders as HTML. None if no two methods have a seed in
        common.
    """
    by_comparison = at_headline(report.tables["comparisons"], report.spec) if "comparisons" in report.tables else []
    if not by_comparison:
        return None
    lead = (
        f"Differences between methods in points of {metric_title(report.spec.strongest)} accuracy at the checkpoint "
        f"{report.spec.first}, on the same images and seeds. Intervals and p are corrected for the number of "
        "comparisons: those of one student hold at once. Where an interval holds zero, the data do not tell which is "
        "better."
    )
    groups = []
    for comparison, rows in by_comparison:
        parts = [differences(rows, report.spec, comparison), _differences(rows, title(comparison, rows))]
        groups.append(Group(comparison.label, parts))
    note = "All metrics and checkpoints are in tables/comparisons.csv beside this page."
    return Section("comparisons", "Methods compared", lead, [*groups, Group("", [Text([note])])])


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
    return Table(f"{title}.", [heads], lines, texts=2)
