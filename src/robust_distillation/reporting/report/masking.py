"""The section that compares the attacks, and points out where a weak attack overestimates robustness.

Gradient masking (Athalye et al., ICML 2018): where gradients mislead, attacks that follow them fail, and the accuracy
that they report is no robustness. Two signs are searched for: the strongest PGD leaves much more accuracy than
AutoAttack, whose steps and targets differ from PGD's and which uses queries as well; or Square, which needs no
gradient, leaves less accuracy than PGD.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from robust_distillation.columns import GROUP, TEACHER_ROW
from robust_distillation.comparison import Comparison
from robust_distillation.reporting.figures.attacks import attacks
from robust_distillation.reporting.figures.legend import TEACHER
from robust_distillation.reporting.report.elements import Cell, Group, Head, Section, Table, Text
from robust_distillation.reporting.report.report_data import ReportData
from robust_distillation.reporting.report.results import cell_of
from robust_distillation.reporting.table_spec import metric_title

GAP = 10.0  # percentage points between the strongest PGD and AutoAttack
PGD = ("pgd10", "pgd20", "pgd_sat", "pgd_trades")
RULE = (
    f"A model is flagged for possible gradient masking where the strongest PGD leaves more than {GAP:.0f} percentage "
    "points more accuracy than AutoAttack, or where Square alone, which sees no gradient, leaves less than PGD. The "
    "reason: gradients then mislead the attack rather than the network being robust (Athalye et al. 2018); where "
    "they do not, PGD stands a few points above AutoAttack. A flag is a reason to look closer, not a proof: a "
    "network of little capacity may pass the line, too."
)


def section(report: ReportData) -> Section:
    """Makes the report's section that compares the attacks with each other, and points out signs of gradient masking:
    gradients that mislead an attack, so that robustness is overestimated.

    For each teacher and student it contains a figure of the accuracy under each attack, a table of the strongest PGD
    beside AutoAttack, and a list of the methods with a sign of gradient masking. There are two signs: the strongest PGD
    leaves more than 10 percentage points more accuracy than AutoAttack, or Square, which uses no gradient, leaves less
    than the strongest PGD. The table is left out if the experiment has no PGD or neither AutoAttack nor Square, and the
    list if there is no sign.

    Args:
        report: data of the experiment, as `reporting.report.report_data.load_report_data(experiment)` returns them.
            Used are `table` (the main table) and `spec` (order of methods and attacks).

    Returns:
        A `Section` with the `id` `attacks`, a `title`, a `lead` (introduction) and `groups` (tables, figures and other
        elements), which `reporting.report.page.page` renders as HTML.
    """
    groups = [Group(comparison.label, _parts(report, comparison)) for comparison in report.spec.comparisons]
    lead = (
        "Accuracy under each attack, from clean images to the strongest. An image counts as robust only where its "
        "clean prediction is right too."
    )
    return Section("attacks", "Attacks compared", lead, [Group("", [Text([RULE])]), *groups])


def _parts(report: ReportData, comparison: Comparison) -> list:
    parts: list = [attacks(report.table, report.spec, comparison)]
    found = list(gaps(comparison.rows(report.table)))
    if found:
        parts.append(_table(found, comparison.label))
    if flagged := [gap for gap in found if gap["reason"]]:
        parts.append(Text([f"{_name(gap['row'])}: {gap['reason']}." for gap in flagged], "warning"))
    return parts


def gaps(rows: pd.DataFrame) -> Iterator[dict]:
    """Checks each model for signs of gradient masking, by comparing the accuracies under different attacks.

    A model is a teacher, or the students of one teacher, student architecture and method over all seeds, at one
    checkpoint; its accuracies are means over the seeds. There are two signs: the accuracy under the strongest PGD is
    more than 10 percentage points above that under AutoAttack, or the accuracy under Square is below that under the
    strongest PGD. The strongest PGD is the metric among `pgd10`, `pgd20`, `pgd_sat` and `pgd_trades` with the lowest
    accuracy.

    Args:
        rows: rows of tables/main.csv. Used columns: `teacher`, `student`, `method`, `checkpoint`, `metric` and `mean`
            (percent).

    Yields:
        A dict for each model that has a PGD metric and one of `autoattack` and `square`, in the order of `rows`. Other
        models are skipped. The keys of the dict are:

        - `row`: the row of the strongest PGD, as a named tuple of `DataFrame.itertuples()`.
        - `pgd`: the title of that attack, such as `PGD-20`.
        - `left`: name of each metric of the model to its row, as a named tuple.
        - `gap`: accuracy under the strongest PGD minus that under AutoAttack, in percentage points; None without
          AutoAttack.
        - `reason`: the signs of masking as text, such as `PGD-20 leaves 12.3 points more than AutoAttack`; empty if
          there is none.
    """
    for _, group in rows.groupby(GROUP, sort=False):
        left = {row.metric: row for row in group.itertuples()}
        pgds = [left[name] for name in PGD if name in left]
        if not pgds or not left.keys() & {"autoattack", "square"}:
            continue
        strongest = min(pgds, key=lambda row: row.mean)
        title = metric_title(strongest.metric)
        gap, reasons = None, []
        if "autoattack" in left:
            gap = strongest.mean - left["autoattack"].mean
            if gap > GAP:
                reasons.append(f"{title} leaves {gap:.1f} points more than AutoAttack")
        if "square" in left and left["square"].mean < strongest.mean:
            reasons.append(f"Square alone leaves {strongest.mean - left['square'].mean:.1f} points less than {title}")
        yield {"row": strongest, "pgd": title, "gap": gap, "left": left, "reason": "; ".join(reasons)}


def _name(row) -> str:
    return f"{_label(row)} ({row.checkpoint})"


def _label(row) -> str:
    return TEACHER if row.student == TEACHER_ROW else row.method


def _table(found: list[dict], about: str) -> Table:
    heads = ["Strongest PGD", "PGD", "AutoAttack", "Gap", "Sign of masking"]
    rows = []
    for gap in found:
        row, left = gap["row"], gap["left"]
        strong = left.get("autoattack")
        verdict = Cell("possible", 1, tone="bad") if gap["reason"] else Cell("none", 0)
        rows.append([
            Cell(_label(row)), Cell(row.checkpoint), Cell(gap["pgd"]),
            Cell(f"{row.mean:.2f}", row.mean, cell_of(row)),
            Cell(f"{strong.mean:.2f}", strong.mean, cell_of(strong)) if strong else Cell(""),
            Cell("") if gap["gap"] is None else Cell(f"{gap['gap']:.2f}", gap["gap"]), verdict,
        ])  # fmt: skip
    named = [Head("Method", number=False), Head("Checkpoint", number=False), Head(heads[0], number=False)]
    return Table(
        f"{about}: is PGD close to AutoAttack? Accuracy in percent.", [[*named, *map(Head, heads[1:])]], rows, texts=3
    )
