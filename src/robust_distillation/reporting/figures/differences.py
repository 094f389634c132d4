"""The figure of the differences between methods with their simultaneous confidence intervals."""

from __future__ import annotations

import pandas as pd

from robust_distillation.columns import METHOD
from robust_distillation.comparison import Comparison
from robust_distillation.reporting.comparisons import reference_of
from robust_distillation.reporting.figures import charts
from robust_distillation.reporting.figures.figure import Figure, Panel
from robust_distillation.reporting.figures.legend import present_keys
from robust_distillation.reporting.table_spec import TableSpec, metric_title
from robust_distillation.statistics.intervals import ALPHA


def differences(rows: pd.DataFrame, spec: TableSpec, comparison: Comparison) -> Figure:
    """Draws the differences in accuracy between distillation methods with their simultaneous 95 % confidence intervals
    (Bonferroni over the comparisons), the largest at the top.

    There is a row for each comparison. If all methods are compared to one, the row has the name and colour of the other
    method, and a difference to the right of zero means that it is better. If every two methods are compared, the row is
    named `BETTER − WORSE` and has the colour of the better method, so no difference is negative. The mark is hollow if
    the adjusted p value is 0.05 or more: then zero lies in the interval.

    Args:
        rows: rows of tables/comparisons.csv (as `reporting.comparisons.tidy` returns them) about one teacher and
            student, at the checkpoint `spec.first` and the metric `spec.strongest`. Used columns: `method`, `other`,
            `difference` (`method` minus `other`), `ci_low`, `ci_high` (all three in percentage points) and
            `p_adjusted`. It may have no rows: the chart is then empty.
        spec: contents and order of the tables, `TableSpec(**experiment.matrix())` with `experiment =
            config.load("params.yaml")`. Used are `methods` (colours), and the first of `checkpoints` and the last of
            `metrics` for the caption.
        comparison: pair of the names of a teacher and a student network, such as `Comparison(teacher="wide",
            student="small")`. It is used for the title only.

    Returns:
        A `figures.figure.Figure` (title, caption, panels with Vega-Altair charts, legend) of one panel, with a legend
        of the methods, for `figures.figure.save` or as an element of a section of the report.
    """
    reference = reference_of(rows)
    ahead = (rows["difference"] >= 0) | (reference is not None)
    first, second = rows[METHOD].where(ahead, rows["other"]), rows["other"].where(ahead, rows[METHOD])
    value = rows["difference"].where(ahead, -rows["difference"])
    frame = pd.DataFrame({
        "row": first if reference else first + " − " + second, METHOD: first, "value": value,
        "low": rows["ci_low"].where(ahead, -rows["ci_high"]), "high": rows["ci_high"].where(ahead, -rows["ci_low"]),
        "apart": rows["p_adjusted"] < ALPHA,
    }).sort_values("value", ascending=False)  # fmt: skip
    frame["label"] = [f"{row.row}: {row.value:+.2f} ({row.low:+.2f} to {row.high:+.2f})" for row in frame.itertuples()]
    text = "; ".join(frame.loc[frame["apart"], "label"]) or "no two methods are told apart"
    title = f"difference to {reference} (points)" if reference else "difference (points)"
    chart = charts.forest(frame, spec.methods, title)
    panel = Panel(chart, f"Differences that leave zero out: {text}", height=charts.height_of(frame["row"], 20))
    caption = (
        f"Difference of {metric_title(spec.strongest)} accuracy{f' to {reference}' * bool(reference)}, checkpoint "
        f"{spec.first}, with its simultaneous {1 - ALPHA:.0%} interval; filled where the methods are told apart, "
        "hollow where zero lies in the interval."
    )
    if frame.empty:
        caption = "No two methods share a seed."
    return Figure(f"{comparison.label}: methods compared", caption, [panel], present_keys(spec.methods, frame[METHOD]))
