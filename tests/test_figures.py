"""Figures: what they show of numbers known beforehand, how they are written, and how they look in the report."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from robust_distillation.columns import TEACHER_ROW
from robust_distillation.comparison import Comparison
from robust_distillation.layout import DRAWN
from robust_distillation.reporting.comparisons import tidy
from robust_distillation.reporting.curves import robustness_curves
from robust_distillation.reporting.figures import main, structure, transfer
from robust_distillation.reporting.figures.attacks import attacks
from robust_distillation.reporting.figures.differences import differences
from robust_distillation.reporting.figures.figure import Figure, save
from robust_distillation.reporting.figures.overview import overview
from robust_distillation.reporting.figures.per_class import by_class, per_class
from robust_distillation.reporting.figures.robustness import robustness
from robust_distillation.reporting.figures.style import SEQUENTIAL, THEME, ramp_colours
from robust_distillation.reporting.figures.trade_off import trade_off
from robust_distillation.reporting.figures.training import training
from robust_distillation.reporting.structure import distances
from robust_distillation.reporting.table_spec import TableSpec
from robust_distillation.settings import ThreatModel
from robust_distillation.statistics.accuracies import accuracies, summary
from robust_distillation.statistics.comparing import Outcomes

LONG = "rslad-without-the-clean-term-and-with-a-long-name"
SHORT = ["natural", "sat", "trades", "mart", "ard", "iad", "rslad", "gacd"]
PAIR = Comparison("big", "small")
SPEC = TableSpec(
    experiment="exp", protocol="controlled", threat="linf eps 0.1", comparisons=[PAIR], methods=["sat", "rslad"],
    checkpoints=["best", "last"], metrics=["clean", "pgd20"],
)  # fmt: skip
MANY = replace(SPEC, methods=[*SHORT, LONG])
CLASSES = ("cat", "dog", "automobile")
THREAT = ThreatModel(eps=0.1)


def outcomes(methods: list[str], seeds: int = 2, classes: int = 3) -> pd.DataFrame:
    """Of each method, seed and checkpoint twelve images; the m-th method is robust on m of them, one more a seed."""
    runs = {("big", TEACHER_ROW, "trades", 7, "best"): 6}
    for place, method in enumerate(methods):
        teacher = "none" if method in SHORT[:4] else "big"
        for seed in range(seeds):
            for checkpoint in ("best", "last"):
                runs[teacher, "small", method, seed, checkpoint] = place + seed
    parts = []
    for keys, robust in runs.items():
        index = np.arange(12)
        labels = index % classes
        rows = {
            "index": index,
            "label": labels,
            "prediction": np.where(index < 11, labels, -1),
            "pgd20": index < robust,
        }
        names = ["teacher", "student", "method", "seed", "checkpoint"]
        parts.append(pd.DataFrame(rows).assign(block=0, attack_seed=0, **dict(zip(names, keys, strict=True))))
    return pd.concat(parts, ignore_index=True)


def curves(methods: list[str], seeds: int = 2) -> pd.DataFrame:
    rows = [
        {"teacher": "none" if method in SHORT[:4] else "big", "student": "small", "method": method, "seed": seed,
         "epoch": epoch, "selection_clean": 0.5 + 0.1 * seed, "selection_robust": 0.1 * epoch if epoch % 2 else None,
         "train_clean": 0.6, "train_robust": 0.2 * epoch if epoch % 2 else None}
        for method in methods for seed in range(seeds) for epoch in range(1, 5)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def eps_curves(methods: list[str]) -> pd.DataFrame:
    return robustness_curves(
        {"teacher": "big", "student": "small", "method": method, "seed": seed, "eps": [0, 0.1],
         "accuracy": [90, 30 + seed]}
        for method in methods for seed in (0, 1)
    )  # fmt: skip


def structures(methods: list[str], classes: int = 3) -> pd.DataFrame:
    """The teacher's classes correlate by 0.5; the m-th method's by 0.1 m, and 0.2 more with each seed."""

    def row(teacher: str, student: str, method: str, seed: int, off: float, moved: float) -> dict:
        matrix = np.full((classes, classes), off) + (1 - off) * np.eye(classes)
        return {
            "teacher": teacher, "student": student, "method": method, "seed": seed, "checkpoint": "best", "images": 40,
            "correlation": matrix.tolist(), "adversarial_correlation": matrix.tolist(), "feature_images": 40,
            "feature_distance": moved, "feature_cosine_distance": moved / 10,
        }  # fmt: skip

    rows = [row("big", TEACHER_ROW, "trades", 0, 0.5, 0.25)]
    for place, method in enumerate(methods):
        teacher = "none" if method in SHORT[:4] else "big"
        rows += [row(teacher, "small", method, seed, 0.1 * place + 0.2 * seed, 0.5 + 0.1 * seed) for seed in (0, 1)]
    return pd.DataFrame(rows)


def values(figure: Figure, panel: int = 0) -> pd.DataFrame:
    """All rows of a panel's chart."""
    return pd.concat([pd.DataFrame(rows) for rows in figure.panels[panel].chart.to_dict()["datasets"].values()])


def compared(found: pd.DataFrame, spec: TableSpec) -> pd.DataFrame:
    table = tidy(Outcomes.of(found), spec)
    return spec.at_headline(table[table["metric"].eq(spec.strongest)])


def figures(spec: TableSpec) -> dict[str, Figure]:
    """One of each kind."""
    found, methods = outcomes(spec.methods), spec.methods
    means = by_class(found, spec, CLASSES, PAIR)
    measured = structures(methods)
    return {
        "training": training(curves(methods), spec, PAIR),
        "trade-off": trade_off(accuracies(found), spec, PAIR),
        "per-class": per_class(means, spec, CLASSES, PAIR),
        "correlations": structure.correlations(measured, spec, CLASSES, PAIR),
        "feature-distances": structure.feature_distances(distances(measured, spec), spec, PAIR),
        "transfer": transfer.transfer(accuracies(found), spec, "stl10", PAIR),
        "overview": overview(summary(found), accuracies(found), spec, PAIR),
        "attacks": attacks(summary(found), spec, PAIR),
        "differences": differences(compared(found, spec), spec, PAIR),
    }


def test_training_curves_are_means_over_the_seeds_with_their_range():
    figure = training(curves(["rslad"]), SPEC, PAIR)
    assert [panel.title for panel in figure.panels] == [
        "Under attack", "Clean", "Under attack, training images", "Clean, training images",
    ]  # fmt: skip
    robust, clean, train_robust, _ = (values(figure, panel) for panel in range(4))
    assert sorted(robust["epoch"].unique()) == [1, 3]  # those with validation
    assert robust.set_index("epoch")["value"].to_dict() == pytest.approx({1: 10, 3: 30})
    assert train_robust.set_index("epoch")["value"].to_dict() == pytest.approx({1: 20, 3: 60})
    assert clean[["value", "low", "high"]].drop_duplicates().to_numpy() == pytest.approx(np.array([[55, 50, 60]]))
    assert [key.name for key in figure.legend] == ["rslad"]
    assert "validation images" in figure.caption
    assert "test images" in training(curves(["rslad"]), replace(SPEC, protocol="official"), PAIR).caption


def test_trade_off_shows_seeds_means_and_the_teacher():
    figure = trade_off(accuracies(outcomes(["sat", "rslad"])), SPEC, PAIR)
    rows = values(figure)
    means = rows[rows["seed"].isna()].set_index("method")["y"]
    assert means.to_dict() == pytest.approx({"sat": 100 / 24, "rslad": 100 * 3 / 24, "teacher": 50})
    assert sorted(rows.loc[rows["seed"].notna() & rows["method"].eq("rslad"), "y"]) == pytest.approx(
        [100 / 12, 200 / 12]
    )
    assert rows["x"].tolist() == pytest.approx([1100 / 12] * len(rows))
    assert [panel.title for panel in figure.panels] == ["All", "The robust students, closer"]
    assert set(values(figure, 1)["method"]) == {"rslad"}
    alone = trade_off(accuracies(outcomes(["rslad"])), replace(SPEC, methods=["rslad"]), PAIR)
    assert [panel.title for panel in alone.panels] == [""]


def test_accuracies_of_classes():
    means = by_class(outcomes(["rslad"]), replace(SPEC, methods=["rslad"]), (*CLASSES, "never"), PAIR)
    assert list(means.index) == ["teacher", "rslad"]
    assert means.loc["teacher"].tolist()[:3] == [50, 50, 50]
    assert means.loc["rslad"].tolist()[:3] == [12.5, 0, 0]  # of seed 1 one image, of the first class
    assert means[3].isna().all()
    figure = per_class(means, SPEC, (*CLASSES, "never"), PAIR)
    assert figure.panels[0].alt == "teacher: worst class 50.0; rslad: worst class 0.0"
    assert sorted(values(figure)["text"].dropna()) == sorted(["50"] * 4 + ["12", "0", "0", "0"])
    assert not figure.legend


@pytest.mark.parametrize("count", [43, 100])
def test_names_of_many_classes_are_left_out_and_the_colours_explained(count):
    names = tuple(f"class {k}" for k in range(count))
    means = by_class(outcomes(["rslad"], classes=12), SPEC, names, PAIR)
    for figure in (
        per_class(means, SPEC, names, PAIR),
        structure.correlations(structures(["sat"], count), SPEC, names, PAIR),
    ):
        assert "class 7" not in figure.panels[0].svg
        assert len(figure.legend) == 5


def test_correlations_have_the_teacher_first_and_distances_to_it():
    figure = structure.correlations(structures(["sat", "rslad"]), SPEC, CLASSES, PAIR)
    off = np.sqrt(6) / 3  # of all entries of three classes those off the diagonal
    away = [np.mean([abs(0.5 - one) for one in seeds]) * off for seeds in ((0, 0.2), (0.1, 0.3))]
    expected = ["teacher\n", f"sat\ndistance {away[0]:.3f}", f"rslad\ndistance {away[1]:.3f}"]
    assert [panel.title for panel in figure.panels] == expected
    assert all("automobile" in panel.svg for panel in figure.panels)
    assert [key.name for key in figure.legend] == ["-1", "-0.5", "0", "0.5", "1"]


def test_overview_and_attacks_show_the_tables_numbers():
    found = outcomes(["sat", "rslad"])
    table = summary(found)
    rows = values(overview(table, accuracies(found), SPEC, PAIR)).drop_duplicates().set_index("method")
    mean = rows.loc["rslad"][rows.loc["rslad"]["seed"].isna() & rows.loc["rslad"]["low"].notna()].iloc[0]
    own = table[table["method"].eq("rslad") & table["checkpoint"].eq("best") & table["metric"].eq("pgd20")].iloc[0]
    assert mean[["value", "low", "high"]].tolist() == own[["mean", "ci_low", "ci_high"]].tolist()
    assert sorted(rows.loc["rslad"]["value"].dropna().round(6).unique()) == [8.333333, 12.5, 16.666667]
    figure = attacks(table, SPEC, PAIR)
    assert [key.name for key in figure.legend] == ["Clean", "PGD-20"]
    assert set(values(figure).loc[values(figure)["method"].eq("rslad"), "value"].round(6)) == {91.666667, 12.5}


def test_differences_have_the_better_method_first_and_are_hollow_around_zero():
    found = compared(outcomes(["sat", "rslad"]), SPEC)
    [row] = values(differences(found, SPEC, PAIR)).dropna(subset="row").to_dict("records")
    assert row["row"] == "rslad − sat"
    assert row["value"] == pytest.approx(100 / 12, abs=1e-4)
    assert not row["apart"]
    swapped = found.assign(method="sat", other="rslad", difference=-found["difference"], ci_low=-found["ci_high"],
                           ci_high=-found["ci_low"])  # fmt: skip
    [again] = values(differences(swapped, SPEC, PAIR)).dropna(subset="row").to_dict("records")
    assert again == row
    assert "no two methods are told apart" in differences(found.iloc[:0], SPEC, PAIR).panels[0].alt


def test_differences_to_a_reference_keep_their_sign():
    found = pd.concat([compared(outcomes(["sat", "rslad"]), SPEC)] * 2)
    rows = found.assign(method=["ard", "rslad"], difference=[-3.0, 2.0], ci_low=-4.0, ci_high=3.0)
    figure = differences(rows, SPEC, PAIR)
    rows_of_chart = values(figure).dropna(subset="row").drop_duplicates("row")
    assert rows_of_chart[["row", "value"]].to_numpy().tolist() == [["rslad", 2.0], ["ard", -3.0]]
    assert "to sat" in figure.caption


def test_robustness_marks_the_threat_models_eps():
    figure = robustness(eps_curves(["rslad"]), SPEC, PAIR, THREAT)
    rows = values(figure)
    assert rows.dropna(subset="value").set_index("eps")["value"].to_dict() == {0: 90, 0.1: 30.5}
    assert rows.loc[rows["value"].isna(), "eps"].tolist() == [0.1]


def test_features_and_transfer_show_means_deviations_and_seeds():
    moved = structure.feature_distances(distances(structures(["sat"]), SPEC), SPEC, PAIR)
    rows = values(moved).drop_duplicates().set_index("method")
    sd = 0.1 / np.sqrt(2)
    bar = rows.loc["sat"][rows.loc["sat"]["low"].notna()].iloc[0]
    assert bar[["value", "low", "high"]].tolist() == pytest.approx([0.55, 0.55 - sd, 0.55 + sd])
    assert sorted(rows.loc["sat"].dropna(subset="seed")["value"]) == [0.5, 0.6]
    assert rows.loc["teacher", "value"] == 0.25
    figure = transfer.transfer(accuracies(outcomes(["sat"])), SPEC, "stl10", PAIR)
    assert [panel.title for panel in figure.panels] == ["PGD-20", "Clean"]
    assert "stl10" in figure.title


def test_figures_under_attack_name_the_threat_and_the_search():
    for search, text in (("bf16", "linf eps 0.1, attacks searched in bfloat16"), ("fp32", "linf eps 0.1;")):
        by_name = figures(replace(SPEC, search=search))
        assert text in by_name["trade-off"].caption
        assert text in by_name["per-class"].caption


def test_colours_of_a_heat_map():
    pixels = ramp_colours(np.array([[0.0, 100.0, np.nan, 10.0]]), (0, 100), SEQUENTIAL)
    assert pixels[0, 0].tolist() == [0x44, 0x01, 0x54, 255]
    assert pixels[0, 1].tolist() == [0xFD, 0xE7, 0x25, 255]
    assert pixels[0, 2, 3] == 0
    assert pixels[0, 3].tolist() == [0x42, 0x22, 0x6E, 255]  # half of the first fifth


@pytest.mark.slow
@pytest.mark.parametrize("spec", [SPEC, MANY], ids=["two methods", "nine methods, one with a long name"])
def test_nothing_is_cut_off_and_all_names_are_there(spec, tmp_path):
    for name, figure in figures(spec).items():
        save(figure, tmp_path / name)
        pixels = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB"))
        edge = np.concatenate([pixels[:6].reshape(-1, 3), pixels[-6:].reshape(-1, 3), pixels[:, :6].reshape(-1, 3),
                               pixels[:, -6:].reshape(-1, 3)])  # fmt: skip
        assert (edge == 255).all(), name
        text = "".join(re.findall(r">([^<]+)</(?:text|tspan)>", (tmp_path / f"{name}.svg").read_text()))
        assert [method for method in spec.methods if method not in text] == [], name


@pytest.mark.slow
def test_files_have_the_same_bytes_again(tmp_path):
    by_name = figures(MANY)
    for name in ("trade-off", "correlations"):  # many opacities, many rasters
        for folder in ("one", "two", "three"):
            save(by_name[name], tmp_path / folder / name)
        for suffix in DRAWN:
            files = {(tmp_path / folder / f"{name}.{suffix}").read_bytes() for folder in ("one", "two", "three")}
            assert len(files) == 1, (name, suffix)


@pytest.mark.slow
def test_files_are_what_their_names_say(tmp_path):
    found = outcomes(["sat"])
    main.draw_all(
        found, curves(["sat"]), eps_curves(["sat"]), compared(found, SPEC), SPEC, CLASSES, THREAT, tmp_path
    )  # fmt: skip
    structure.draw_all(structures(["sat"]), SPEC, CLASSES, tmp_path)
    transfer.draw_all(outcomes(["sat"]), SPEC, "stl10", tmp_path)
    names = [
        "attacks", "correlations", "differences", "feature-distances", "overview", "per-class", "robustness",
        "trade-off", "training", "transfer-stl10",
    ]  # fmt: skip
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*"))
    assert files == sorted(Path("big/small") / f"{name}.{suffix}" for name in names for suffix in DRAWN)
    for name in names:
        stem = tmp_path / "big/small" / name
        assert stem.with_suffix(".svg").read_text().startswith("<svg ")
        assert stem.with_suffix(".pdf").read_bytes().startswith(b"%PDF-")
        assert Image.open(io.BytesIO(stem.with_suffix(".png").read_bytes())).format == "PNG"


@pytest.mark.slow
def test_a_student_without_a_teacher_has_all_figures(tmp_path):
    alone = replace(SPEC, comparisons=[Comparison("none", "small")])
    found = outcomes(["sat"])
    found = found[found["student"] != TEACHER_ROW]
    main.draw_all(
        found, curves(["sat"]), eps_curves([]), compared(found, alone), alone, CLASSES, THREAT, tmp_path
    )  # fmt: skip
    measured = structures(["sat"])
    structure.draw_all(measured[measured["student"] != TEACHER_ROW], alone, CLASSES, tmp_path)
    assert len(list((tmp_path / "none/small").iterdir())) == 8 * len(DRAWN)


def test_the_report_draws_in_the_pages_colours():
    fixed = {light for light, _ in THEME.values()}
    for name, figure in figures(SPEC).items():
        for panel in figure.panels:
            used = set(re.findall(r'(?:fill|stroke)="([^"]+)"', panel.svg))
            assert not used & fixed, name
            assert any(colour.startswith("var(--") for colour in used), name
            assert panel.alt
