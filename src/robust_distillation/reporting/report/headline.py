"""What experiment this is, and what came out at a glance."""

from __future__ import annotations

import pandas as pd

from robust_distillation.columns import ITSELF
from robust_distillation.pipeline.text import commit, machine, minute
from robust_distillation.reporting.report import charts
from robust_distillation.reporting.report.elements import Facts, Figure, Group, Section, of_pair
from robust_distillation.reporting.report.legend import TEACHER, legend
from robust_distillation.reporting.report.report_data import Material
from robust_distillation.reporting.report.results import of_comparison, spread
from robust_distillation.reporting.tables import at_headline, metric_title
from robust_distillation.statistics.accuracies import accuracies

LED = 3  # comparisons at most that are told in words


def section(material: Material) -> Section:
    experiment = material.experiment
    students = material.table[material.table["student"] != ITSELF]
    facts = [
        ("Dataset", f"{experiment.dataset.name}, {students['n_images'].iloc[0]} test images, "
         f"{len(experiment.info.classes)} classes"),
        ("Threat model", material.matrix.attacked),
        ("Protocol", f"{material.matrix.protocol}; best is {material.matrix.selection}"),
        ("Matrix", _matrix(material)),
        ("Strongest attack", metric_title(material.strongest)),
        ("Made", _when(material)),
        ("On", "; ".join(dict.fromkeys(machine(record["hardware"]) for record in material.records.values()))),
        ("Code", "; ".join(dict.fromkeys(commit(record) for record in material.records.values()))),
    ]  # fmt: skip
    groups = [Group("", [Facts(facts)])]
    groups += [Group(of_pair(*pair), [_at_a_glance(material, *pair)]) for pair in material.matrix.pairs]
    lead = " ".join(_said(material, *pair) for pair in material.matrix.pairs[:LED])
    return Section("overview", "At a glance", lead, groups)


def _said(material: Material, teacher: str, student: str) -> str:
    """The highest robust accuracy, which need not be told apart from the next."""
    rows = of_comparison(at_headline(material.table, material.matrix), teacher, student)
    title = metric_title(material.strongest)
    rows = rows.set_index(["method", "metric"])
    itself = rows["student"].eq(ITSELF)
    taught, own = rows[itself]["mean"], rows[~itself]
    best = own.xs(material.strongest, level="metric")["mean"].idxmax()
    robust, clean = own.loc[(best, material.strongest)], own.loc[(best, "clean"), "mean"]
    said = (
        f"Of the students {student}, {best} has the highest {title} accuracy: {spread(robust['mean'], robust['sd'])} "
        f"%, at {clean:.2f} % on clean images"
    )
    if taught.empty:
        return f"{said}."
    return f"{said}; the teacher {teacher} has {taught.xs(material.strongest, level='metric').iloc[0]:.2f} %."


def _matrix(material: Material) -> str:
    experiment = material.experiment
    counts = {
        "teacher": experiment.teachers, "student": experiment.students, "method": experiment.methods,
        "seed": experiment.file.seeds,
    }  # fmt: skip
    return ", ".join(f"{len(found)} {what}{'s' * (len(found) != 1)}" for what, found in counts.items())


def _when(material: Material) -> str:
    times = [record["time"] for record in material.records.values()]
    first, last = min(time["started"] for time in times), max(time["ended"] for time in times)
    return f"{minute(first)} to {minute(last)} UTC"


def _at_a_glance(material: Material, teacher: str, student: str) -> Figure:
    names = material.matrix.methods
    rows = of_comparison(at_headline(material.table, material.matrix), teacher, student)
    seeds = of_comparison(accuracies(at_headline(material.outcomes, material.matrix)), teacher, student)
    panels = []
    for metric in (material.strongest, "clean"):
        title = metric_title(metric)
        frame = dotted(rows[rows["metric"] == metric], seeds[seeds["metric"] == metric], title)
        ranked = frame[frame["seed"].isna()].sort_values("value", ascending=False)
        said = ", ".join(f"{row.method} {row.value:.1f}" for row in ranked.itertuples())
        chart = charts.dots(frame, names, f"{title} accuracy (%)")
        height = charts.height_of(frame["method"].nunique())
        panels.append(charts.panel(chart, f"{title} accuracy in percent: {said}", title, height))
    shown = set(rows["method"])
    caption = (
        f"{of_pair(teacher, student)}, checkpoint {material.first}. Large: mean over the seeds, with its 95 % interval "
        "where there are seeds enough; small: each seed."
    )
    return Figure(caption, panels, [key for key in legend(names) if key.name in shown | {TEACHER}])


def dotted(rows: pd.DataFrame, seeds: pd.DataFrame, title: str) -> pd.DataFrame:
    """Rows of a tidy table and values per seed, of one metric, as `charts.dots` takes them."""
    means = pd.DataFrame({
        "method": rows["method"].where(rows["student"] != ITSELF, TEACHER), "value": rows["mean"],
        "low": rows["ci_low"].clip(0, 100), "high": rows["ci_high"].clip(0, 100), "seed": None,
    })  # fmt: skip
    means["label"] = [f"{row.method}: {title} {row.value:.2f}" + _interval(row) for row in means.itertuples()]
    own = seeds[seeds["student"] != ITSELF]
    single = own[["method", "seed", "value"]].assign(low=None, high=None)
    single["label"] = [f"{row.method}, seed {row.seed}: {title} {row.value:.2f}" for row in single.itertuples()]
    several = single.groupby("method")["seed"].transform("count") > 1
    return pd.concat([means.astype({"low": float, "high": float}), single[several]], ignore_index=True)


def _interval(row) -> str:
    return "" if pd.isna(row.low) else f" (95 % interval {row.low:.2f} to {row.high:.2f})"
