"""Differences between methods with their simultaneous intervals."""

from __future__ import annotations

import pandas as pd

from robust_distillation.columns import METHOD
from robust_distillation.comparison import Comparison
from robust_distillation.reporting.figures import charts
from robust_distillation.reporting.figures.figure import Figure, Panel
from robust_distillation.reporting.figures.legend import present_keys
from robust_distillation.reporting.table_spec import TableSpec, metric_title
from robust_distillation.statistics.intervals import ALPHA


def differences(rows: pd.DataFrame, spec: TableSpec, comparison: Comparison) -> Figure:
    """Draws a row per two methods, the better one first and in its colour.

    Args:
        rows: those of tables/comparisons.csv about this comparison at the headline; may be empty.
        spec: order of the methods, and which attack and checkpoint are the headline's.
        comparison: the students compared.
    """
    ahead = rows["difference"] >= 0
    first, second = rows[METHOD].where(ahead, rows["other"]), rows["other"].where(ahead, rows[METHOD])
    frame = pd.DataFrame({
        "row": first + " − " + second, METHOD: first, "value": rows["difference"].abs(),
        "low": rows["ci_low"].where(ahead, -rows["ci_high"]), "high": rows["ci_high"].where(ahead, -rows["ci_low"]),
        "apart": rows["p_adjusted"] < ALPHA,
    }).sort_values("value", ascending=False)  # fmt: skip
    frame["label"] = [f"{row.row}: {row.value:+.2f} ({row.low:+.2f} to {row.high:+.2f})" for row in frame.itertuples()]
    text = "; ".join(frame.loc[frame["apart"], "label"]) or "no two methods differ"
    chart = charts.forest(frame, spec.methods, "difference (points)")
    panel = Panel(chart, f"Differences that leave zero out: {text}", height=charts.height_of(frame["row"], 20))
    caption = (
        f"Difference of {metric_title(spec.strongest)} accuracy, checkpoint {spec.first}, with its simultaneous "
        f"{1 - ALPHA:.0%} interval; hollow where it holds zero."
    )
    if frame.empty:
        caption = "No two methods share a seed."
    return Figure(f"{comparison.label}: methods compared", caption, [panel], present_keys(spec.methods, frame[METHOD]))
