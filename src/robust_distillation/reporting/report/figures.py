"""Training curves, the clean-robust trade-off, and robustness by class."""

from __future__ import annotations

import pandas as pd

from robust_distillation.columns import ITSELF
from robust_distillation.reporting.report import charts
from robust_distillation.reporting.report.elements import Cell, Figure, Group, Head, Section, Table, of_pair
from robust_distillation.reporting.report.legend import TEACHER, legend
from robust_distillation.reporting.report.report_data import Material
from robust_distillation.reporting.report.results import of_comparison
from robust_distillation.reporting.tables import at_headline, metric_title
from robust_distillation.statistics.accuracies import accuracies

SHOWN = 20  # classes at most, for a column each; of more the worst ones are named
WORST = 5  # of them


def training(material: Material) -> Section:
    split = "test" if material.experiment.selects_on_test else "validation"
    lead = (
        f"Accuracy on the {split} images that choose the checkpoint best, by epoch: mean over the seeds, their range "
        "shaded. A robust curve that falls at the end is robust overfitting; best is then better than last."
    )
    groups = [Group(of_pair(*pair), [_curves(material, *pair)]) for pair in material.matrix.pairs]
    return Section("training", "Training", lead, groups)


def _curves(material: Material, teacher: str, student: str) -> Figure:
    own = of_comparison(material.curves, teacher, student)
    panels, names = [], material.matrix.methods
    for column, title in {"selection_robust": "Under attack", "selection_clean": "Clean"}.items():
        looked = own.dropna(subset=[column]).assign(value=100 * own[column])
        frame = looked.groupby(["method", "epoch"], sort=False)["value"].agg(["mean", "min", "max"]).reset_index()
        frame = frame.rename(columns={"mean": "value", "min": "low", "max": "high"})
        frame["label"] = [f"{row.method}, epoch {row.epoch}: {row.value:.1f} %" for row in frame.itertuples()]
        chart = charts.lines(frame, names, ("epoch", "epoch"), ("value", "accuracy (%)"))
        last = frame.groupby("method")["value"].last()
        said = ", ".join(f"{name} {last[name]:.1f}" for name in names if name in last)
        panels.append(charts.panel(chart, f"{title}, accuracy in percent by epoch; after the last: {said}", title))
    caption = f"{of_pair(teacher, student)}: accuracy by epoch."
    return Figure(caption, panels, _legend(names, own))


def trade_off(material: Material) -> Section:
    lead = (
        "Clean accuracy against that under the strongest attack: what is further up and to the right is better in "
        "both. Beside all models the robust ones closer: those that keep at least half of the best one's robustness."
    )
    groups = [Group(of_pair(*pair), [_trade_off(material, *pair)]) for pair in material.matrix.pairs]
    return Section("trade-off", "Clean against robust accuracy", lead, groups)


def _trade_off(material: Material, teacher: str, student: str) -> Figure:
    robust, names = material.strongest, material.matrix.methods
    values = of_comparison(accuracies(at_headline(material.outcomes, material.matrix)), teacher, student)
    values["method"] = values["method"].where(values["student"] != ITSELF, TEACHER)
    wide = values.pivot(index=["method", "seed"], columns="metric", values="value").reset_index()
    wide = wide.rename(columns={"clean": "x", robust: "y"})[["method", "seed", "x", "y"]]
    means = wide.groupby("method", sort=False)[["x", "y"]].mean().reset_index()
    frame = pd.concat([wide[wide["method"] != TEACHER], means.assign(seed=None)], ignore_index=True)
    title = metric_title(robust)
    frame["label"] = [
        f"{row.method}{'' if pd.isna(row.seed) else f', seed {row.seed:.0f}'}: clean {row.x:.2f}, {title} {row.y:.2f}"
        for row in frame.itertuples()
    ]
    students = means[means["method"] != TEACHER]
    near = set(students.loc[students["y"] >= students["y"].max() / 2, "method"])
    axes = ("x", "clean accuracy (%)"), ("y", f"{title} accuracy (%)")
    said = "; ".join(f"{row.method} {row.x:.1f} clean, {row.y:.1f} robust" for row in means.itertuples())
    panels = [charts.panel(charts.scatter(frame, names, *axes), f"Accuracy in percent: {said}", "All")]
    if near < set(students["method"]):
        closer = charts.scatter(frame[frame["method"].isin(near)], names, *axes)
        panels.append(charts.panel(closer, f"The same for {', '.join(sorted(near))}", "The robust students, closer"))
    caption = f"{of_pair(teacher, student)}, checkpoint {material.first}. Large: mean over the seeds; small: each seed."
    return Figure(caption, panels, _legend(names, values, teacher=TEACHER in set(values["method"])))


def classes(material: Material) -> Section:
    lead = (
        f"{metric_title(material.strongest)} accuracy of each class, mean over the seeds, at the checkpoint "
        f"{material.first}. A mean can hide a class that is defended hardly at all."
    )
    groups = [Group(of_pair(*pair), _classes(material, *pair)) for pair in material.matrix.pairs]
    return Section("classes", "Robustness by class", lead, groups)


def _classes(material: Material, teacher: str, student: str) -> list:
    metric, names, known = material.strongest, material.matrix.methods, material.experiment.info.classes
    shown = of_comparison(at_headline(material.outcomes, material.matrix), teacher, student)
    who = shown["method"].where(shown["student"] != ITSELF, TEACHER)
    means = 100 * shown.groupby([who, "label"])[metric].mean().unstack().reindex(columns=range(len(known)))
    means = means.reindex([name for name in [TEACHER, *names] if name in means.index])
    overall = 100 * shown.groupby(who)[metric].mean()
    frame = pd.DataFrame({
        "method": means.index, "value": overall[means.index].to_numpy(), "low": means.min(axis=1).to_numpy(),
        "high": means.max(axis=1).to_numpy(), "seed": None,
    })  # fmt: skip
    frame["label"] = [
        f"{row.method}: mean {row.value:.1f}, worst class {row.low:.1f}, best class {row.high:.1f}"
        for row in frame.itertuples()
    ]
    chart = charts.dots(frame, names, f"{metric_title(metric)} accuracy (%), worst to best class", (0, 100))
    panel = charts.panel(chart, "; ".join(frame["label"]), height=charts.height_of(len(frame)))
    caption = f"{of_pair(teacher, student)}: the mean over all images, and the range from the worst class to the best."
    return [Figure(caption, [panel]), _class_table(means, known, of_pair(teacher, student))]


def _class_table(means: pd.DataFrame, known: tuple[str, ...], about: str) -> Table:
    rows = []
    for method, values in means.iterrows():
        found = values.dropna().sort_values(kind="stable")
        worst = Cell(f"{found.iloc[0]:.0f} ({known[found.index[0]]})", found.iloc[0], share=1 - found.iloc[0] / 100)
        if len(known) <= SHOWN:
            cells = [
                Cell("") if pd.isna(value) else Cell(f"{value:.0f}", value, share=1 - value / 100) for value in values
            ]
        else:
            named = found.iloc[1:WORST]
            cells = [
                Cell(f"{value:.0f} ({known[label]})", value, share=1 - value / 100) for label, value in named.items()
            ]
        rows.append([Cell(method), worst, *cells])
    others = known if len(known) <= SHOWN else [f"{rank}. worst" for rank in range(2, WORST + 1)]
    heads = [Head("Method", number=False), Head("Worst class"), *(Head(name) for name in others)]
    return Table(f"{about}: robust accuracy by class in percent; the deeper the colour the weaker.", [heads], rows)


def _legend(names: list[str], frame: pd.DataFrame, teacher: bool = False) -> list:
    present = set(frame["method"])
    return [key for key in legend(names, teacher) if key.name in present | {TEACHER}]
