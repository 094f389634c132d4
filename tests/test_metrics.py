"""Metrics beside accuracy: known answers on made outcomes, their intervals, and the tables, claims and settings that
name them."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from conftest import TINY, planned
from scipy import stats

from robust_distillation import config, metrics
from robust_distillation.audit.lineage import format_sections, trace_cell
from robust_distillation.cli import main
from robust_distillation.columns import TEACHER_ROW
from robust_distillation.comparison import Comparison
from robust_distillation.config.claims import Claim, parse_statement
from robust_distillation.errors import UserError
from robust_distillation.evaluation.outcomes import attack_columns, read_outcomes, write_outcomes
from robust_distillation.metrics.contract import Metric, Predictions
from robust_distillation.pipeline.fingerprint import closure
from robust_distillation.pipeline.steps import Attack, Compare, Tabulate, TrainTeacher, computed
from robust_distillation.reporting import claims, tables
from robust_distillation.reporting.cells import cell_named
from robust_distillation.reporting.report.page import page
from robust_distillation.reporting.table_spec import TableSpec, heading, metric_title
from robust_distillation.statistics import verdicts
from robust_distillation.statistics.accuracies import accuracies, matrices, summary
from robust_distillation.statistics.comparing import Outcomes, comparisons, paired
from robust_distillation.statistics.estimates import Estimate
from robust_distillation.statistics.intervals import half_width, mean_squares
from robust_distillation.statistics.measuring import Measured, resampled_images
from robust_distillation.tracking.mlflow_run import mlflow_runs

NAMES = metrics.names()


def made(labels, predicted, confidence=None, correct=None, teacher=None) -> Predictions:
    """Predictions of one network or more; on clean images, unless `correct` says what is right under an attack too."""
    labels, predicted = np.asarray(labels), np.atleast_2d(predicted)
    clean = predicted == labels
    return Predictions(
        labels, clean, clean if correct is None else np.atleast_2d(correct), predicted,
        None if confidence is None else np.atleast_2d(confidence), None if teacher is None else np.asarray(teacher),
    )  # fmt: skip


def random_predictions(seeds: int = 3, images: int = 200, classes: int = 5) -> Predictions:
    random = np.random.default_rng(5)
    labels = random.integers(0, classes, images)
    easy = random.random(images) < 0.3 + labels / 10
    predicted = np.where(easy | (random.random((seeds, images)) < 0.3), labels, (labels + 1) % classes)
    correct = (predicted == labels) & (random.random((seeds, images)) < 0.7)
    return Predictions(
        labels, predicted == labels, correct, predicted, random.random((seeds, images)), (labels + easy) % classes
    )


def value(kind: str, predictions: Predictions) -> list[float]:
    return metrics.get(f"{kind}.clean").measure(predictions).tolist()


# Known answers


def test_worst_class_is_the_lowest_accuracy_of_a_class_with_images():
    labels = [0, 0, 0, 0, 1, 1, 4, 4]  # classes 2 and 3 have no image
    predicted = [0, 0, 0, 1, 1, 1, 4, 0], [0, 0, 0, 0, 1, 1, 4, 4]
    assert value("worst_class", made(labels, predicted)) == [0.5, 1.0]  # class 4; no class is worse than another
    assert metrics.get("worst_class.clean").support(made(labels, predicted)) == 2
    robust = [True, True, False, False, True, True, True, True]
    assert value("worst_class", made(labels, predicted[1], correct=robust)) == [0.5]  # class 0 under the attack


def test_nsd_is_the_standard_deviation_over_the_classes_over_their_mean():
    labels = [0] * 4 + [1] * 2 + [2]
    predicted = [0, 1, 1, 1, 1, 0, 2]  # 1/4, 1/2, 1: mean 7/12, deviations -1/3, -1/12, 5/12
    expected = math.sqrt((16 + 1 + 25) / 144 / 3) / (7 / 12)
    assert value("nsd", made(labels, predicted)) == pytest.approx([expected])
    assert value("nsd", made(labels, labels)) == [0.0]
    assert np.isnan(value("nsd", made(labels, [9] * 7))[0])  # nothing is right: not perfectly even, but not defined


def test_mean_is_half_the_sum_of_both_accuracies():
    labels, predicted, robust = [0, 0, 1, 1], [0, 0, 1, 0], [True, False, False, False]
    assert value("mean", made(labels, predicted, correct=robust)) == [(3 / 4 + 1 / 4) / 2]
    found = metrics.get("mean.pgd20").per_image(made(labels, predicted, correct=robust))
    assert found.tolist() == [[1.0, 0.5, 0.5, 0.0]]


def test_agreement_is_the_share_of_equal_predictions_right_or_wrong():
    predicted = [0, 1, 1, 2], [0, 0, 0, 0]
    assert value("agreement", made([0, 0, 1, 1], predicted, teacher=[0, 1, 0, 2])) == [0.75, 0.5]


def test_ece_of_two_bins_by_hand():
    """Bin (13/15, 14/15]: confidence 0.9, two of three right. Bin (7/15, 8/15]: 0.5, right."""
    found = value("ece", made([0, 0, 0, 1], [0, 0, 1, 1], confidence=[0.9, 0.9, 0.9, 0.5]))
    assert found == pytest.approx([3 / 4 * abs(2 / 3 - 0.9) + 1 / 4 * 0.5])
    assert value("ece", made([0] * 4, [0] * 4, confidence=[1.0] * 4)) == [0]
    assert value("ece", made([0] * 4, [1] * 4, confidence=[1.0] * 4)) == [1]


def test_ece_is_that_of_the_bins_written_out():
    found = random_predictions()
    for seed, (predicted, confidence) in enumerate(zip(found.predicted, found.confidence, strict=True)):
        expected = 0.0
        for m in range(1, 16):
            own = (confidence > (m - 1) / 15) & (confidence <= m / 15)
            if own.any():
                expected += own.mean() * abs((predicted == found.labels)[own].mean() - confidence[own].mean())
        assert value("ece", found)[seed] == pytest.approx(expected)


@pytest.mark.parametrize("bin_", range(1, 15))
def test_a_confidence_at_an_edge_lies_in_the_bin_below(bin_):
    """There it joins one a little lower, whose error has the other sign: apart they would add up."""
    edge = bin_ / 15
    near, beyond = edge - 0.01, edge + 0.01
    confidence, predicted = [[edge, near], [edge, beyond]], [[0, 1], [0, 1]]  # the first is right, the second wrong
    together, apart = value("ece", made([0, 0], predicted, confidence=confidence))
    assert together == pytest.approx(abs(1 - edge - near) / 2)
    assert apart == pytest.approx((1 - edge + beyond) / 2)


# Properties


@pytest.mark.parametrize("kind", NAMES)
def test_a_metric_does_not_depend_on_the_order_of_the_images(kind):
    found, order = random_predictions(), np.random.default_rng(0).permutation(200)
    mixed = Predictions(*(part[..., order] for part in found))
    assert value(kind, mixed) == pytest.approx(value(kind, found), abs=1e-12)


@pytest.mark.parametrize("kind", NAMES)
def test_weights_count_an_image_as_often_as_it_is_there(kind):
    found, random = random_predictions(), np.random.default_rng(1)
    index = random.integers(0, 200, (4, 200))
    weights = np.stack([np.bincount(own, minlength=200) for own in index]).astype(float)
    weighted = metrics.get(f"{kind}.clean").measure(found, weights)
    repeated = [value(kind, Predictions(*(part[..., own] for part in found))) for own in index]
    assert weighted.shape == (4, 3)
    assert weighted == pytest.approx(np.array(repeated), abs=1e-12)


@pytest.mark.parametrize("kind", NAMES)
def test_percentages_are_fractions_of_one(kind):
    metric, values = metrics.get(f"{kind}.pgd20"), value(kind, random_predictions())
    assert metric.unit in ("percent", "fraction")
    assert all(0 <= one <= (1 if metric.unit == "percent" else 2) for one in values)
    assert (metric.scale, metric.attack, metric.kind) == (100 if metric.unit == "percent" else 1, "pgd20", kind)


def test_what_one_class_cannot_have_and_what_it_has():
    alone = made([3, 3, 3, 3], [3, 3, 3, 1])
    assert value("worst_class", alone) == [0.75]
    assert value("nsd", alone) == [0]


@pytest.mark.parametrize("kind", [kind for kind in NAMES if metrics.get(f"{kind}.clean").needs])
def test_missing_and_nan_parts_are_refused(kind):
    whole = random_predictions()
    for need in metrics.get(f"{kind}.clean").needs:
        broken = getattr(whole, need).astype(float)
        broken[..., 3] = np.nan
        for part in (None, broken):
            with pytest.raises(UserError, match=rf"^{kind}\.clean needs the .*, which the outcomes lack: attack again"):
                value(kind, whole._replace(**{need: part}))


def test_the_registry_has_the_five_and_their_declarations():
    assert set(NAMES) == {"agreement", "ece", "mean", "nsd", "worst_class"}
    known = {kind: metrics.get(f"{kind}.clean") for kind in NAMES}
    assert {kind for kind, one in known.items() if not one.higher_is_better} == {"ece", "nsd"}
    assert {kind for kind, one in known.items() if one.unit != "percent"} == {"nsd"}
    assert {kind for kind, one in known.items() if one.is_mean} == {"agreement", "mean"}
    assert metrics.split("worst_class.transfer_pgd20") == ("worst_class", "transfer_pgd20")
    assert metrics.split("autoattack") == ("", "autoattack")
    assert metrics.get("autoattack").measure(random_predictions()) == pytest.approx(
        random_predictions().correct.mean(1)
    )
    with pytest.raises(UserError, match=r"unknown metric 'worst_clas'\. Did you mean 'worst_class'"):
        metrics.get("worst_clas.clean")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "must define per_image or measure, found neither"),
        ({"per_image": len, "measure": len}, "found per_image and measure"),
        ({"measure": len, "UNIT": "percnt"}, "unknown UNIT 'percnt'. Did you mean 'percent'"),
        ({"measure": len, "NEEDS": ("confidnce",)}, "unknown part in NEEDS 'confidnce'. Did you mean 'confidence'"),
    ],
)
def test_a_module_that_is_no_metric_is_refused(content, message):
    module = type(metrics)("own")
    module.__file__ = "own.py"
    vars(module).update(content)
    with pytest.raises(UserError, match=rf"^metric 'own': own\.py:? .*{message}"):
        Metric("own.clean", "own", "clean", module)


# Outcomes

FILE = {"teacher": "big", "student": "small", "method": "rslad", "seed": 0, "checkpoint": "best"}


def outcomes(models: dict[tuple, Predictions], attacked: bool = True) -> pd.DataFrame:
    """A table of outcomes: (teacher, student, method, checkpoint) to predictions under pgd20; the clean ones are all of
    class 0 where they are wrong."""
    parts = []
    for (teacher, student, method, checkpoint), found in models.items():
        for seed, correct in enumerate(found.correct):
            columns = {"index": np.arange(len(found.labels)), "label": found.labels}
            columns["prediction"] = found.predicted[seed] if found.predicted is not None else found.labels
            columns |= {"block": 0, "attack_seed": 1, "pgd20": correct}
            if attacked:
                columns["confidence"] = np.float32(found.confidence[seed])
                columns["pgd20.prediction"] = np.where(correct, found.labels, found.labels + 1)
                columns["pgd20.confidence"] = np.float32(1 - found.confidence[seed] / 2)
            keys = {"teacher": teacher, "student": student, "method": method, "seed": seed, "checkpoint": checkpoint}
            parts.append(pd.DataFrame(columns).assign(**keys))
    return pd.concat(parts, ignore_index=True)


def example(seeds: int = 3) -> pd.DataFrame:
    """Three methods and a teacher; sat needs no teacher and is much the worst in the class 0."""
    models = {}
    for number, (teacher, student, method) in enumerate(
        [("big", TEACHER_ROW, "trades"), ("big", "small", "rslad"), ("big", "small", "ard"), ("none", "small", "sat")]
    ):
        random = np.random.default_rng(number)
        count = 1 if student == TEACHER_ROW else seeds
        labels = np.arange(300) % 3
        chance = 0.9 - (0.7 if method == "sat" else 0.1) * (labels == 0)
        correct = random.random((count, 300)) < chance
        predicted = np.where(correct | (random.random((count, 300)) < 0.5), labels, 0)
        confidence = 0.5 + random.random((count, 300)) / 2
        models[teacher, student, method, "best"] = Predictions(
            labels, predicted == labels, correct & (predicted == labels), predicted, confidence
        )
    return outcomes(models)


def test_new_columns_come_last_and_are_no_attacks(tmp_path):
    table = example(1)
    write_outcomes(tmp_path / "a.parquet", table[table["method"].eq("rslad")].sample(frac=1, random_state=0))
    stored = read_outcomes([tmp_path / "a.parquet"])
    old = [*FILE, "index", "label", "prediction", "block", "attack_seed", "pgd20"]
    assert list(stored) == [*old, "confidence", "pgd20.prediction", "pgd20.confidence"]
    assert attack_columns(stored) == ["pgd20"]
    assert stored["confidence"].dtype == np.float32
    assert set(accuracies(stored)["metric"]) == {"clean", "pgd20"}


def test_old_outcomes_have_accuracies_and_the_metrics_that_need_no_more(tmp_path):
    table = example(2)
    old = table.drop(columns=[name for name in table if "confidence" in name or name == "pgd20.prediction"])
    enough = ["worst_class.pgd20", "nsd.pgd20", "mean.pgd20", "agreement.clean"]
    pd.testing.assert_frame_equal(summary(old, enough), summary(table, enough))
    for name in ("ece.clean", "ece.pgd20", "agreement.pgd20"):
        with pytest.raises(UserError, match=rf"^outcomes of big/\S+: {name} needs .*, which the outcomes lack"):
            summary(old, [name])
    mixed = pd.concat([table, old.assign(method=old["method"] + "-old")])  # as if two files were read
    with pytest.raises(UserError, match=r"^outcomes of \S+-old/best: ece\.clean needs the confidence"):
        summary(mixed, ["ece.clean"])


def test_agreement_is_with_the_single_teacher_only():
    table = example()
    rows = summary(table, ["agreement.clean", "agreement.pgd20"]).set_index(["method", "metric"])["mean"]
    teacher = table[table["method"].eq("trades")].set_index("index")["prediction"]
    for method in ("rslad", "ard"):
        own = table[table["method"].eq(method)]
        for metric, column in (("agreement.clean", "prediction"), ("agreement.pgd20", "pgd20.prediction")):
            share = (own[column].to_numpy() == teacher.loc[own["index"]].to_numpy()).mean()
            assert rows[method, metric] == pytest.approx(100 * share)
    assert not {method for method, metric in rows.index if metric.startswith("agreement")} & {"sat", "trades"}
    group = table.assign(teacher=table["teacher"].where(table["method"] != "ard", "both"))  # an entry with roles
    assert "ard" not in set(summary(group, ["agreement.clean"]).query("metric == 'agreement.clean'")["method"])
    short = table[(table["method"] != "trades") | (table["index"] < 200)]
    with pytest.raises(UserError, match="the teacher was not attacked on the same images"):
        summary(short)


# Intervals


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("paired_", [False, True])
def test_resampling_a_mean_gives_the_mean_squares_of_its_values(seeds, paired_):
    """A mean over images does not need to be resampled: where it is, the intervals are as long."""
    random = np.random.default_rng(2)
    latent = (
        random.normal(size=(2, 1, 400)) + random.normal(size=(2, seeds, 400)) + random.normal(size=(2, seeds, 1)) / 5
    )
    one, other = (
        Measured(x.mean(1), None, resampled_images(400) @ x.T / 400, 400, 400) for x in (latent > 0).astype(float)
    )
    rows = list(range(seeds))
    found = one.minus(other, rows, rows) if paired_ else one
    x = latent[0] > 0
    expected = mean_squares(x.astype(float) - (latent[1] > 0)) if paired_ else mean_squares(x)
    assert found.squares().mean == pytest.approx(expected.mean)
    assert found.squares().of_seeds == pytest.approx(expected.of_seeds)
    assert found.squares().of_images == pytest.approx(expected.of_images, rel=0.2)
    assert half_width(found.squares()) == pytest.approx(half_width(expected), rel=0.1)
    assert abs(found.bias()) < 0.003


def test_the_same_images_are_drawn_in_every_process():
    sampled = resampled_images(50)
    assert sampled.shape == (500, 50)
    assert (sampled.sum(1) == 50).all()
    assert sampled[0, :8].tolist() == [1, 0, 2, 0, 1, 2, 0, 0]
    assert sampled.var() == pytest.approx(1 - 1 / 50, rel=0.05)


def test_the_interval_of_the_worst_class_has_the_width_of_that_class_alone():
    """One class is far below the others: resampling it is Student's t over its images, and there is no bias."""
    labels = np.arange(1200) % 3
    correct = np.random.default_rng(0).random((1, 1200)) < np.where(labels == 0, 0.4, 0.9)
    found = Measured.of(metrics.get("worst_class.clean"), Predictions(labels, correct, correct))
    own = correct[0][labels == 0]
    assert found.values == pytest.approx([own.mean()])
    assert half_width(found.squares()) == pytest.approx(1.966 * own.std(ddof=1) / 20, rel=0.1)
    assert abs(found.bias()) < 0.002


def test_classes_alike_are_known_to_pull_the_worst_one_down():
    """The lowest of ten equal accuracies of 50 images each lies below 0.5, and its resampled ones lower still."""
    labels = np.arange(500) % 10
    correct = np.random.default_rng(0).random((1, 500)) < 0.5
    table = outcomes({("none", "small", "sat", "best"): made(labels, labels, np.ones(500), correct)})
    row = summary(table, ["worst_class.pgd20"]).set_index("metric").loc["worst_class.pgd20"]
    assert row["mean"] < 45
    assert row["ci_high"] - row["mean"] > 1.3 * (row["mean"] - row["ci_low"])  # lengthened to the side of the bias


def test_a_class_that_is_never_right_has_the_exact_bound_of_its_images():
    """Tests 20 images of which none is right, for any seed: the true accuracy may still be up to 1 - 0.025^(1/20)."""
    labels = np.array([0] * 20 + [1] * 180)
    found = Measured.of(metrics.get("worst_class.clean"), Predictions(labels, *[np.tile(labels == 1, (3, 1))] * 2))
    assert half_width(found.squares()) == pytest.approx(1 - 0.025 ** (1 / 20))


def test_the_spread_over_seeds_is_in_the_interval():
    """Three seeds far apart: the interval is at least Student's t over their three values."""
    labels = np.arange(300) % 3
    correct = np.stack([np.arange(300) // 3 < count for count in (20, 40, 60)])
    found = Measured.of(metrics.get("worst_class.clean"), Predictions(labels, correct, correct))
    assert found.values.tolist() == [0.2, 0.4, 0.6]
    assert half_width(found.squares()) >= 0.9999 * stats.t.ppf(0.975, 2) * 0.2 / math.sqrt(3)


def test_pairs_share_their_images():
    """A method and its copy differ by nothing, and a nearly equal one by little: less than either's own interval."""
    table = example()
    models = dict(matrices(table))
    one, other = models["big", "small", "rslad", "best"], models["none", "small", "sat", "best"]
    for name in ("worst_class.pgd20", "ece.clean", "nsd.pgd20"):
        same = paired(one, one, name)
        assert (same.resampled == 0).all()
        both = paired(one, other, name)
        assert both.values == pytest.approx(one.measured(name).values - other.measured(name).values)
        np.testing.assert_array_equal(both.resampled, one.measured(name).resampled - other.measured(name).resampled)


def test_only_seeds_that_both_have_are_compared():
    table = example()
    models = dict(matrices(table[(table["method"] != "ard") | (table["seed"] > 0)]))
    one, other = models["big", "small", "rslad", "best"], models["big", "small", "ard", "best"]
    found = paired(one, other, "ece.clean")
    assert found.values == pytest.approx(one.measured("ece.clean").values[1:] - other.measured("ece.clean").values)
    assert found.resampled.shape == (500, 2)


# Tables

FURTHER = ["worst_class.pgd20", "nsd.pgd20", "mean.pgd20", "agreement.clean", "ece.pgd20"]
SPEC = TableSpec(
    "exp", "controlled", "linf eps 0.1", [Comparison("big", "small")], ["sat", "ard", "rslad"], ["best"],
    ["clean", "pgd20"], FURTHER,
)  # fmt: skip


def test_main_table_has_the_metrics_behind_the_accuracies():
    table, plain = tables.tidy(example(), SPEC), tables.tidy(example(), replace(SPEC, further=[]))
    pd.testing.assert_frame_equal(table[~table["metric"].str.contains(".", regex=False)].reset_index(drop=True), plain)
    own = table[table["method"].eq("rslad")]
    assert own["metric"].tolist() == ["clean", "pgd20", *FURTHER]
    assert table[table["method"].eq("sat")]["metric"].tolist() == ["clean", "pgd20", *FURTHER[:3], FURTHER[4]]
    assert set(table["n_images"]) == {300}
    rows = own.set_index("metric")
    assert ((rows["ci_low"] <= rows["mean"]) & (rows["mean"] <= rows["ci_high"])).all()
    assert rows.loc["nsd.pgd20", "mean"] < 1 < rows.loc["worst_class.pgd20", "mean"]  # a fraction, percent
    found = accuracies(example(), FURTHER)
    found = found[found["method"].eq("rslad")].groupby("metric")["value"].agg(["mean", "std"])
    assert rows["mean"].to_dict() == pytest.approx(found["mean"].to_dict(), abs=1e-4)
    assert rows["sd"].to_dict() == pytest.approx(found["std"].to_dict(), abs=1e-4)


def test_tables_for_people_name_unit_and_direction():
    table = tables.tidy(example(), SPEC)
    text = re.sub(" +", " ", tables.markdown(table, SPEC))
    assert "| Worst class, PGD-20 (best) | NSD, PGD-20 ↓ (best) |" in text
    nsd = table.set_index(["method", "metric"]).loc[("rslad", "nsd.pgd20")]
    assert f"| {nsd['mean']:.3f} ± {nsd['sd']:.3f} |" in text
    assert "accuracy in percent and further metrics on 300 test images" in text
    assert "- NSD: the standard deviation of the class accuracies" in text
    assert "a fraction; lower is better." in text
    assert "- Worst class: the lowest accuracy of a class (worst-class accuracy), in percent." in text
    assert "Worst class, NSD, ECE in main.csv come from resampled test images and from the spread over 3 seeds." in text
    tex = tables.latex(table, SPEC)
    assert r"NSD, PGD-20 $\downarrow$" in tex
    assert "lower is better" in tex
    assert "NSD" not in tables.markdown(table[~table["metric"].isin(FURTHER)], replace(SPEC, further=[]))


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        (1, "resampled test images alone: one seed tells nothing of others."),
        (2, "resampled test images and from the spread over 2 seeds, which are few."),
    ],
)
def test_few_seeds_are_told(seeds, words):
    assert words in tables.markdown(tables.tidy(example(seeds), SPEC), SPEC)


def test_a_named_table_may_show_some_metrics():
    spec = replace(SPEC, tables={"fair": {"title": "Fair", "metrics": ["pgd20", "worst_class.pgd20"]}})
    view = tables.named_tables(tables.tidy(example(), spec), spec)["fair"]
    assert set(view.table["metric"]) == {"pgd20", "worst_class.pgd20"}
    assert (view.spec.metrics, view.spec.further) == (["pgd20"], ["worst_class.pgd20"])
    assert "| PGD-20 (best) | Worst class, PGD-20 (best) |" in re.sub(" +", " ", tables.markdown(*view))


def test_a_metric_that_is_not_defined_has_no_row():
    """No prediction of sat is right: its NSD would be 0 over 0."""
    table = example()
    none = table["method"].eq("sat")
    table.loc[none, "prediction"], table.loc[none, "pgd20"] = table["label"] + 1, False
    rows = tables.tidy(table, SPEC)
    assert Counter(rows[rows["metric"].eq("nsd.pgd20")]["method"]) == {"trades": 1, "ard": 1, "rslad": 1}
    assert "| sat | 0.00 ± 0.00" in " ".join(tables.markdown(rows, SPEC).split())


def test_titles_and_directions():
    assert metric_title("worst_class.autoattack") == "Worst class, AutoAttack"
    assert metric_title("ece.transfer_pgd20") == "ECE, transfer PGD-20"
    assert (heading("ece.clean"), heading("clean"), heading("mean.pgd20").endswith("↓")) == (
        "ECE, Clean ↓",
        "Clean",
        False,
    )


# Comparisons and claims


def test_comparisons_are_in_the_unit_of_the_metric():
    found = comparisons(Outcomes.of(example()), SPEC.comparisons, SPEC.methods, ["best"], SPEC.columns)
    means = tables.tidy(example(), SPEC).set_index(["method", "metric"])["mean"]
    for row in found.itertuples():
        assert row.difference == pytest.approx(means[row.method, row.metric] - means[row.other, row.metric], abs=2e-4)
        assert (row.p_adjusted < 0.05) == (not row.ci_low <= 0 <= row.ci_high)
    counts = Counter(found["metric"])
    assert (counts["worst_class.pgd20"], counts["agreement.clean"]) == (3, 1)  # sat has no teacher
    apart = found.set_index(["method", "other", "metric"])
    assert apart.loc[("rslad", "sat", "worst_class.pgd20"), "ci_low"] > 30
    assert apart.loc[("rslad", "sat", "nsd.pgd20"), "ci_high"] < 0


def judged(text: str, table: pd.DataFrame) -> pd.Series:
    statement = parse_statement(text)._replace(checkpoint="best")
    claim = Claim("it", text, statement, tuple(SPEC.comparisons), "")
    scale = {"datasets": {"": "digits"}, "students": {"small": "small"}, "protocol": "controlled"}
    return claims.judged([claim], claims.Evidence({"": Outcomes.of(table)}), SPEC, scale).iloc[0]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("rslad > sat on worst_class.pgd20", verdicts.SUPPORTED),
        ("rslad > sat on worst_class.pgd20 by 30", verdicts.SUPPORTED),
        ("rslad < sat on worst_class.pgd20", verdicts.REFUTED),
        ("rslad > sat on worst_class.pgd20 by 90", verdicts.REFUTED),
        ("rslad < sat on nsd.pgd20 by 0.05", verdicts.SUPPORTED),
        ("rslad < sat on nsd.pgd20 by 1", verdicts.REFUTED),  # the margin is a fraction, not points
        ("rslad > ard on agreement.clean", verdicts.INCONCLUSIVE),
        ("rslad > ard on ece.clean", verdicts.INCONCLUSIVE),
    ],
)
def test_a_claim_on_a_metric_gets_a_verdict(text, verdict):
    row = judged(text, example())
    assert row["verdict"] == verdict
    assert (row["n_seeds"], row["n_images"]) == (3, 300)
    assert row["ci_low"] < row["difference"] < row["ci_high"]
    assert (row["seeds_needed"] != "") == (verdict == verdicts.INCONCLUSIVE)
    digits = 3 if "nsd" in text else 2
    assert f"{row['difference']:+.{digits}f}" in claims.markdown(pd.DataFrame([row]), SPEC)


def test_a_claim_on_what_is_not_defined_says_so():
    row = judged("rslad > sat on agreement.clean", example())
    assert (row["verdict"], row["n_seeds"]) == (verdicts.INCONCLUSIVE, 0)
    assert row["seeds_needed"] == "agreement.clean is not defined for sat"


def test_one_seed_decides_no_claim_on_a_metric():
    row = judged("rslad > sat on worst_class.pgd20", example(1))
    assert (row["verdict"], row["seeds_needed"]) == (
        verdicts.INCONCLUSIVE,
        "at least 2: one seed says nothing of others",
    )


def test_images_needed_are_counted_in_test_images():
    """A third of the test images are of the worst class: three times as many of them are needed as of its own."""
    squares = mean_squares(np.repeat([[1] * 22 + [-1] * 18 + [0] * 60], 3, axis=0))
    alone, share = (
        verdicts.seeds_needed(Estimate(float(squares.mean), 3, images, [squares]), 0, 0.05) for images in (100, 300)
    )
    needed = [int(text.split()[-4]) for text in (alone, share)]
    assert needed[1] == pytest.approx(3 * needed[0], abs=3)


# Experiments


def test_a_metric_is_in_the_fingerprint_of_tables_that_name_it_and_of_no_attack(tmp_path):
    overlay = "evaluation: {metrics: [worst_class.autoattack]}\nclaims: {even: rslad < natural on nsd.clean}\n"
    (tmp_path / "overlay.yaml").write_text(overlay)
    experiment = config.load("params.yaml", str(tmp_path / "overlay.yaml"))
    plain = config.load("params.yaml")
    modules = {
        kind: {module.rpartition(".")[2] for module in closure([step.run.partition(":")[0], *step.named])
               if ".metrics." in module}
        for kind, step in (
            ("tables", Tabulate(experiment)), ("claims", Compare(experiment)), ("plain", Tabulate(plain)),
        )
    }  # fmt: skip
    always = {"contract", "accuracy"}
    assert modules == {"tables": always | {"worst_class"}, "claims": always | {"worst_class", "nsd"}, "plain": always}
    for step in computed(experiment):
        assert not any(".metrics" in module for module in closure([step.run.partition(":")[0], *step.named])), step.name
    (tmp_path / "by.yaml").write_text("training: {selection: {by: worst_class.apgd}}")
    by = computed(config.load("params.yaml", str(tmp_path / "by.yaml")))
    teacher = next(step for step in by if isinstance(step, TrainTeacher))
    found = {module.rpartition(".")[2] for module in closure([teacher.run.partition(":")[0], *teacher.named])}
    assert {"worst_class", "contract", "metrics"} <= found
    attack, before = (next(step for step in computed(one) if isinstance(step, Attack)) for one in (experiment, plain))
    assert attack.settings == before.settings


def test_a_metric_named_later_is_measured_on_the_outcomes_that_are_there(tree, monkeypatch):
    """Tables, figures, MLflow and the report are made again, nothing else, and they show the metric."""
    further = ["worst_class.fgsm", "ece.clean", "agreement.pgd20"]
    (tree / "tiny.yaml").write_text(TINY.replace("block_size: 10", f"block_size: 10, metrics: [{', '.join(further)}]"))
    assert {job.split()[0] for job in planned(tree)} <= {
        "tabulate", "draw_figures", "compare", "report_structure", "report_transfer", "report_tuning", "track",
        "report_html", "index",
    }  # fmt: skip
    monkeypatch.chdir(tree)
    assert CliRunner().invoke(main, ["tabulate", "--overlay", "tiny.yaml"]).exit_code == 0
    experiment = config.load("params.yaml", "tiny.yaml")
    table = pd.read_csv(experiment.layout.tables / "main.csv")
    rows = table[table["method"].eq("rslad") & table["checkpoint"].eq("best")].set_index("metric")
    assert rows.index.tolist() == ["clean", "fgsm", "pgd20", *further]
    [run] = [run for run in mlflow_runs(experiment, experiment.layout) if run.name == "wide/small/rslad/seed-0"]
    assert {name: run.results[f"test_best_{name}"] for name in further} == pytest.approx(
        rows.loc[further, "mean"].to_dict()
    )
    html = page(experiment)
    assert "Worst class, FGSM" in html
    assert f">{rows.loc['ece.clean', 'mean']:.2f}<" in html
    cell = cell_named(experiment, "wide/small/rslad/best/agreement.pgd20")
    text = format_sections(trace_cell(experiment, cell))
    assert f"{cell}: {rows.loc['agreement.pgd20', 'mean']:.2f} %" in text
    assert "outcomes/teachers/wide.parquet" in text
    with pytest.raises(UserError, match=r"has no none/small/natural/best/agreement\.pgd20: .* is not defined"):
        trace_cell(experiment, cell_named(experiment, "none/small/natural/best/agreement.pgd20"))
