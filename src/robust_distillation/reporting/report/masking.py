"""The attacks compared, and where a weak attack looks too good.

Gradient masking (Athalye et al., ICML 2018): where gradients mislead, attacks that follow them fail, and the accuracy
they report is no robustness. Two signs are asked for: the strongest PGD leaves many more images than AutoAttack, whose
steps and targets are not PGD's and which asks queries besides; or Square, which needs no gradient, finds more than PGD.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from robust_distillation.columns import ITSELF
from robust_distillation.reporting.report import charts
from robust_distillation.reporting.report.elements import Cell, Figure, Group, Head, Section, Table, Text, of_pair
from robust_distillation.reporting.report.legend import TEACHER
from robust_distillation.reporting.report.report_data import Material
from robust_distillation.reporting.report.results import cell_of, of_comparison
from robust_distillation.reporting.tables import metric_title

GAP = 10.0  # percentage points between the strongest PGD and AutoAttack
PGD = ("pgd10", "pgd20", "pgd_sat", "pgd_trades")
RULE = (
    f"A model is flagged for possible gradient masking where the strongest PGD leaves more than {GAP:.0f} percentage "
    "points more accuracy than AutoAttack, or where Square alone, which sees no gradient, leaves less than PGD. The "
    "reason: gradients then mislead the attack rather than the network being robust (Athalye et al. 2018); where "
    "they do not, PGD stands a few points above AutoAttack. A flag is a reason to look closer, not a proof: a "
    "network of little capacity may pass the line, too."
)


def section(material: Material) -> Section:
    groups = []
    for teacher, student in material.matrix.pairs:
        rows = of_comparison(material.table, teacher, student)
        groups.append(Group(of_pair(teacher, student), _parts(material, rows, of_pair(teacher, student))))
    lead = (
        "What each attack leaves standing, from the clean accuracy to the strongest. An image counts as held only "
        "where its clean prediction is right too."
    )
    return Section("attacks", "Attacks compared", lead, [Group("", [Text([RULE])]), *groups])


def _parts(material: Material, rows: pd.DataFrame, about: str) -> list:
    metrics = [metric for metric in material.matrix.metrics if metric in set(rows["metric"])]
    named = rows.assign(method=rows["method"].where(rows["student"] != ITSELF, TEACHER))
    at = named[named["checkpoint"].eq(material.first) | named["student"].eq(ITSELF)]
    frame = at.rename(columns={"mean": "value"}).assign(metric=at["metric"].map(metric_title))
    frame["label"] = [f"{row.method}, {row.metric}: {row.value:.1f} %" for row in frame.itertuples()]
    chart = charts.by_attack(frame, material.matrix.methods, [metric_title(metric) for metric in metrics])
    said = ", ".join(f"{metric_title(m)} {at.loc[at['metric'] == m, 'mean'].mean():.1f}" for m in metrics)
    panel = charts.panel(chart, f"Accuracy by method under each attack; over all methods on average: {said}",
                         height=charts.height_of(at["method"].nunique()))  # fmt: skip
    legend = charts.attack_keys([metric_title(metric) for metric in metrics])
    parts: list = [Figure(f"{about}, checkpoint {material.first}: what each attack leaves.", [panel], legend)]
    found = list(gaps(rows))
    if found:
        parts.append(_table(found, about))
    if flagged := [gap for gap in found if gap["reason"]]:
        parts.append(Text([f"{_name(gap['row'])}: {gap['reason']}." for gap in flagged], "warning"))
    return parts


def gaps(rows: pd.DataFrame) -> Iterator[dict]:
    """Of each model with a PGD and AutoAttack or Square: row (keys), pgd (its name), gap in points (None without
    AutoAttack), reason (empty where nothing is suspicious). rows: of a tidy table, in percent."""
    keys = ["teacher", "student", "method", "checkpoint"]
    for _, group in rows.groupby(keys, sort=False):
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
    return f"{'teacher' if row.student == ITSELF else row.method} ({row.checkpoint})"


def _table(found: list[dict], about: str) -> Table:
    heads = ["Strongest PGD", "PGD", "AutoAttack", "Gap", "Sign of masking"]
    rows = []
    for gap in found:
        row, left = gap["row"], gap["left"]
        strong = left.get("autoattack")
        verdict = Cell("possible", 1, tone="bad") if gap["reason"] else Cell("none", 0)
        rows.append([
            Cell("teacher" if row.student == ITSELF else row.method), Cell(row.checkpoint), Cell(gap["pgd"]),
            Cell(f"{row.mean:.2f}", row.mean, cell_of(row)),
            Cell(f"{strong.mean:.2f}", strong.mean, cell_of(strong)) if strong else Cell(""),
            Cell("") if gap["gap"] is None else Cell(f"{gap['gap']:.2f}", gap["gap"]), verdict,
        ])  # fmt: skip
    named = [Head("Method", number=False), Head("Checkpoint", number=False), Head(heads[0], number=False)]
    return Table(
        f"{about}: is PGD close to AutoAttack? Accuracy in percent.", [[*named, *map(Head, heads[1:])]], rows, texts=3
    )
