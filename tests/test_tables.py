"""Published numbers: those that are shipped, and where and how they stand beside ours."""

from __future__ import annotations

import itertools
import math
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from robust_distillation.columns import TEACHER_ROW
from robust_distillation.comparison import Comparison
from robust_distillation.reference import published
from robust_distillation.reporting import tables
from robust_distillation.reporting.table_spec import TableSpec, metric_title

METRICS = ["clean", "fgsm", "pgd_sat", "pgd_trades", "cw", "autoattack"]
METHODS = ["natural", "sat", "trades", "ard", "iad", "rslad"]
ALONE = METHODS[:3]  # need no teacher
IMAGES = 1000
STUDENTS = ("resnet18", "mobilenet_v2", "preact_resnet18", "wrn34_10", "wrn34_20")
NO_ADDRESS = ("no public address", "where it was published is not known")
WITHOUT_OWN_NUMBERS = {
    "wrn34_10_sat_adaad", "resnet18_sat_iad", "wrn34_10_trades_and_resnet56", "wrn70_16_gowal2020_and_wrn22_6",
}  # fmt: skip


def entry(reference: str, student: str, method: str, checkpoint: str, metric: str) -> published.Entry:
    found = [e for e in published.entries() if e[:1] + e[5:9] == (reference, student, method, checkpoint, metric)]
    assert len(found) == 1
    return found[0]


# What is shipped


def test_rows_are_whole():
    rows = published.entries()
    assert len(rows) > 300
    for row in rows:
        assert row.mark in published.MARKS, row
        assert row.checkpoint in ("best", "last", published.ANY), row
        assert row.dataset in ("cifar10", "cifar100"), row
        assert 0 <= row.value <= 100, row
        assert row.source.startswith("https://") or row.source.endswith(NO_ADDRESS), row
        assert metric_title(row.metric) != row.metric, row
        assert (row.student, row.method) == ("-", "-") or row.student in STUDENTS, row
    assert Counter((row.reference, row.paper, *row[4:9]) for row in rows).most_common(1)[0][1] == 1
    teachers = {row.teacher for row in rows if row.reference == "teachers"}
    assert {row.teacher for row in rows} == teachers | WITHOUT_OWN_NUMBERS | {"none"}
    assert not teachers & WITHOUT_OWN_NUMBERS
    assert {entry.reference for entry in published.entries()} >= {
        "rslad_cifar10_white_box", "rslad_cifar100_white_box", "rslad_cifar10_black_box", "rslad_cifar10_300_epochs",
        "rslad_cifar10_reruns", "rslad_cifar100_reruns", "teachers",
    }  # fmt: skip


def test_some_numbers_as_the_papers_print_them():
    assert entry("rslad_cifar10_white_box", "resnet18", "rslad", "best", "autoattack").value == 51.49
    assert entry("rslad_cifar10_white_box", "mobilenet_v2", "rslad", "last", "autoattack").value == 49.90
    assert entry("rslad_cifar100_white_box", "resnet18", "rslad", "best", "autoattack").value == 26.70
    assert entry("rslad_cifar10_black_box", "resnet18", "rslad", "-", "square").value == 57.90
    assert entry("rslad_cifar10_300_epochs", "resnet18", "sat-300", "-", "autoattack")[9:11] == (44.73, "S")
    own = {(e.teacher, e.metric): (e.value, e.mark) for e in published.entries() if e.reference == "teachers"}
    assert own["wrn34_10_trades", "clean"] == (84.92, "C")
    assert own["wrn34_10_trades", "autoattack"] == (53.08, "C")
    assert own["wrn70_16_gowal2020", "clean"] == (60.86, "C")
    assert own["wrn70_16_gowal2020", "autoattack"] == (30.03, "C")


def test_some_numbers_of_the_newer_papers():
    """Rows of tables that were read, of codes, and of what others quote, each with its mark."""
    expected = [
        ("b_mtard_cifar10", "resnet18", "b_mtard", "-", "autoattack", 47.44, "S"),
        ("b_mtard_cifar100", "resnet18", "b_mtard", "-", "clean", 65.08, "S"),
        ("lbgat_cifar100", "wrn34_10", "lbgat-6", "-", "autoattack", 29.33, "C"),
        ("lbgat_cifar100", "wrn34_10", "lbgat-awp", "-", "autoattack", 30.44, "C"),
        ("dgad_cifar10", "resnet18", "dgad", "-", "autoattack", 52.34, "S"),
        ("adaad_cifar10", "resnet18", "adaiad", "best", "autoattack", 52.96, "S"),
        ("cgard_cifar10", "resnet18", "cgard", "-", "autoattack", 52.46, "P"),
        ("cgard_cifar10", "resnet18", "cgard-sequential", "-", "autoattack", 51.01, "P"),
        ("cgard_cifar100", "mobilenet_v2", "cgard", "-", "autoattack", 27.66, "P"),
        ("saad_cifar10", "resnet18", "saad", "last", "autoattack", 50.34, "S"),
        ("igdm_cifar100", "resnet18", "adaad-igdm", "-", "autoattack", 30.32, "P"),
        ("igdm_cifar10", "resnet18", "adaad-igdm", "-", "autoattack", 54.02, "S"),
        ("awp_cifar10", "preact_resnet18", "sat-awp", "best", "pgd20", 55.39, "C"),
        ("iad_cifar10", "resnet18", "iad2", "-", "autoattack", 48.58, "S"),
        ("fastat_cifar100", "resnet18", "n_fgsm", "best", "autoattack", 24.86, "C"),
    ]
    teachers = {
        "dgad_cifar10": "wrn34_20_ltd",
        "adaad_cifar10": "wrn34_20_ltd",
        "saad_cifar10": "wrn94_16_bartoldson2024",
    }
    for reference, *keys, value, mark in expected:
        found = [
            (row.value, row.mark)
            for row in published.entries()
            if (row.reference, *row[5:9]) == (reference, *keys) and row.teacher == teachers.get(reference, row.teacher)
        ]
        assert found == [(value, mark)], (reference, keys)


def test_what_is_only_relayed_is_not_among_the_newer_numbers():
    """A doubtful number stands only where a table of RSLAD's re-runs had it before."""
    assert {row.reference for row in published.entries() if row.mark == "R"} == {
        "rslad_cifar10_reruns",
        "rslad_cifar100_reruns",
    }


def test_the_table_of_cgard_is_complete():
    methods = ["sat", "trades", "ard", "rslad", "iad", "adaad", "peeraid", "cgard"]
    for reference in ("cgard_cifar10", "cgard_cifar100"):
        found = [e[5:9] for e in published.entries() if e.reference == reference and e.table == "Table 1"]
        metrics = ["clean", "pgd20", "cw", "autoattack"]
        assert sorted(found) == sorted(itertools.product(["resnet18", "mobilenet_v2"], methods, ["-"], metrics))


def test_oddities_of_the_paper_are_noted():
    for student in ("resnet18", "mobilenet_v2"):
        row = entry("rslad_cifar100_white_box", student, "trades", "best", "cw")
        assert row.value == 25.06
        assert "both students" in row.note
    row = entry("rslad_cifar100_white_box", "resnet18", "sat", "best", "autoattack")
    assert row.value == 21.79
    assert "far below" in row.note


@pytest.mark.parametrize("reference", ["rslad_cifar10_white_box", "rslad_cifar100_white_box"])
def test_the_papers_white_box_table_is_complete(reference):
    found = [e[5:9] for e in published.entries() if e.reference == reference and e.mark == "P"]
    expected = itertools.product(["resnet18", "mobilenet_v2"], METHODS, ["best", "last"], METRICS)
    assert sorted(found) == sorted(expected)


def test_the_papers_black_box_table_is_complete():
    found = [e[5:9] for e in published.entries() if e.reference == "rslad_cifar10_black_box" and e.mark == "P"]
    metrics = ["transfer_pgd20", "transfer_cw", "square"]
    assert sorted(found) == sorted(itertools.product(["resnet18", "mobilenet_v2"], METHODS[1:], ["-"], metrics))


def test_names_are_known_without_heavy_imports():
    """Experiment files are checked against them in milliseconds."""
    code = (
        "import sys; from robust_distillation.reference import published; assert published.entries(); "
        "assert not {'pandas', 'numpy', 'torch', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# Where it stands


def outcomes(runs: dict[tuple, dict[str, int]]) -> pd.DataFrame:
    """(teacher, student, method, seed, checkpoint) to how many of the images are right (clean) or held, by metric."""
    parts = []
    for keys, right in runs.items():
        index = np.arange(IMAGES)
        columns = {"index": index, "label": 0, "prediction": index >= right["clean"], "block": 0, "attack_seed": 0}
        robust_correct = {metric: index < count for metric, count in right.items() if metric != "clean"}
        names = dict(zip(["teacher", "student", "method", "seed", "checkpoint"], keys, strict=True))
        parts.append(pd.DataFrame({**columns, **robust_correct}).astype({"prediction": int}).assign(**names))
    return pd.concat(parts, ignore_index=True)


SPEC = TableSpec(
    experiment="paper", protocol="official", threat="linf eps 8/255",
    comparisons=[Comparison("big", "resnet18"), Comparison("big", "mobile")], methods=[*METHODS, "rslad-alpha-0.5"],
    checkpoints=["best", "last"], metrics=METRICS, selection="chosen on the test set, as the paper's code does",
    published=["rslad_cifar10_white_box", "rslad_cifar10_reruns", "teachers"],
    published_as={"big": "wrn34_10_trades", "mobile": "mobilenet_v2"},
    tables={
        "main_claim": {"title": "Against AutoAttack", "students": ["resnet18"], "metrics": ["clean", "autoattack"],
                       "methods": ["trades", "rslad"], "checkpoints": ["last"], "teachers": None},
        "empty": {"title": "50 % of_nothing & more", "methods": ["gacd"]},
        "everything": {"title": "All"},
    },
)  # fmt: skip


@pytest.fixture(scope="module")
def runs() -> dict[tuple, dict[str, int]]:
    """Every cell of the matrix with counts of its own."""
    random = np.random.default_rng(0)
    found = {("big", TEACHER_ROW, "trades", 0, "best"): dict(zip(METRICS, [851, 600, 590, 580, 570, 531], strict=True))}
    for student in ("resnet18", "mobile"):
        for method in SPEC.methods:
            for checkpoint in SPEC.checkpoints:
                teacher = "none" if method in ALONE else "big"
                counts = random.integers(0, IMAGES + 1, len(METRICS)).tolist()
                found[teacher, student, method, 0, checkpoint] = dict(zip(METRICS, counts, strict=True))
    return found


@pytest.fixture(scope="module")
def table(runs) -> pd.DataFrame:
    return tables.tidy(outcomes(runs).sample(frac=1, random_state=0), SPEC)


def grids(text: str) -> dict[str, list[list[str]]]:
    """The grids of a Markdown page by their bold headings, cells stripped."""
    found: dict[str, list[list[str]]] = {}
    for line in text.splitlines():
        if line.startswith("**"):
            found[line.strip("*")] = []
        elif line.startswith("|") and not line.startswith("|:"):
            list(found.values())[-1].append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def test_csv_holds_published_difference_and_mark(table, runs):
    assert list(table.columns) == tables.COLUMNS
    keys = ["teacher", "student", "method", "checkpoint", "metric"]
    by_key = table.set_index(keys)
    for (teacher, student, method, _, checkpoint), right in runs.items():
        for metric, count in right.items():
            row = by_key.loc[(teacher, student, method, checkpoint, metric)]
            assert row["mean"] == pytest.approx(100 * count / IMAGES)
            if student == TEACHER_ROW:
                expected = {"clean": (84.92, "C"), "autoattack": (53.08, "C")}.get(metric)
            elif method in METHODS:
                name = student.replace("mobile", "mobilenet_v2")
                expected = entry("rslad_cifar10_white_box", name, method, checkpoint, metric)[9:11]
            else:
                expected = None
            if expected is None:
                assert row[["published", "difference", "mark"]].isna().all()
            else:
                assert (row["published"], row["mark"]) == expected
                assert row["difference"] == pytest.approx(100 * count / IMAGES - expected[0], abs=1e-9)
    assert table["published"].notna().sum() == 144 + 2
    assert set(table["protocol"]) == {"official"}


def test_every_published_number_stands_beneath_ours(table, runs):
    """All 144 of the paper's table, each with its mark and with what the two numbers shown differ by."""
    printed = grids(tables.markdown(table, SPEC))
    assert list(printed) == [
        f"Student {student}, teacher big: {name}" for student in ("resnet18", "mobile") for name in ("best", "last")
    ]
    seen = 0
    for heading, lines in printed.items():
        student, checkpoint = re.match(r"Student (\w+), teacher big: (\w+)", heading).groups()
        lines = [line[:-1] for line in lines]  # but robust overfitting, which has a test of its own
        assert lines[0] == ["method", "Clean", "FGSM", "PGD_SAT", "PGD_TRADES", "CW", "AutoAttack"]
        assert lines[1] == ["teacher (trades, best)", "85.10", "60.00", "59.00", "58.00", "57.00", "53.10"]
        assert lines[2] == ["↳ published", "84.92 C, +0.18", "", "", "", "", "53.08 C, +0.02"]
        labels = [line[0] for line in lines]
        assert [label for label in labels if not label.startswith("↳")][2:] == SPEC.methods
        for method in METHODS:
            place = labels.index(method)
            assert labels[place + 1] == "↳ published"
            for ours, cell, metric in zip(lines[place][1:], lines[place + 1][1:], METRICS, strict=True):
                name = student.replace("mobile", "mobilenet_v2")
                theirs = entry("rslad_cifar10_white_box", name, method, checkpoint, metric).value
                teacher = "none" if method in ALONE else "big"
                assert float(ours) == pytest.approx(runs[teacher, student, method, 0, checkpoint][metric] / 10)
                assert cell == f"{theirs:.2f} P, {float(ours) - theirs:+.2f}".replace("-0.00", "+0.00")
                seen += 1
        assert labels[-1] == "rslad-alpha-0.5"  # a variant: nothing was published
    assert seen == 144


def test_others_runs_of_the_same_stand_beneath_by_paper(table):
    printed = grids(tables.markdown(table, SPEC))
    best, last = (
        [line[:-1] for line in printed[f"Student resnet18, teacher big: {name}"]] for name in ("best", "last")
    )
    beneath = {line[0]: line[1:] for line in best[best.index(next(x for x in best if x[0] == "rslad")) + 1 :]}
    assert list(beneath)[:4] == ["↳ published", "↳ SZU-098 (2023)", "↳ AdaAD (Huang 2023)", "↳ PeerAiD (Jung 2024)"]
    assert beneath["↳ AdaAD (Huang 2023)"][-1].startswith("48.45 S, ")
    assert beneath["↳ AdaAD (Huang 2023)"][:-1] == [""] * 5
    assert beneath["↳ SZU-098 (2023)"][-1].startswith("51.91 R, ")
    beneath = {line[0]: line[1:] for line in last}
    assert beneath["↳ SZU-252 (2023)"][0].startswith("83.54 P, ")
    assert "↳ AdaAD (Huang 2023)" not in beneath  # it is of the best checkpoint
    assert beneath["↳ PeerAiD (Jung 2024)"][-1].startswith("51.03 S, ")  # its checkpoint is not stated


@pytest.mark.parametrize(
    ("mean", "printed"), [(51.46, "51.49 P, -0.03"), (51.486, "51.49 P, +0.00"), (51.8, "51.49 P, +0.31")]
)
def test_difference_is_that_of_the_numbers_shown(mean, printed):
    """A mean of 51.486 % shows as 51.49, so that beside 51.49 nothing is between them."""
    runs = {("big", "resnet18", "rslad", 0, "best"): {"clean": IMAGES, "autoattack": 514}}
    table = tables.tidy(outcomes(runs), replace(SPEC, metrics=["clean", "autoattack"]))
    changed = table.assign(mean=mean)
    assert grids(tables.markdown(changed, SPEC))["Student resnet18, teacher big: best"][2][2] == printed


def test_published_stands_beside_the_same_teacher_only(runs):
    """RSLAD from another teacher is not what the paper reports; TRADES needs none and is."""
    table = tables.tidy(outcomes(runs), replace(SPEC, published_as={"mobile": "mobilenet_v2"}))
    known = table[table["published"].notna()]
    assert set(known["method"]) == set(ALONE)
    assert set(known["teacher"]) == {"none"}


def test_references_are_asked_in_their_order():
    key = ("wrn34_10_trades", "resnet18", "rslad", "last", "autoattack")
    first = ["rslad_cifar10_white_box", "rslad_cifar10_reruns"]
    assert [e.value for e in published.find_published(first, *key)] == [51.32, 51.67, 51.03]
    assert [e.value for e in published.find_published(first[::-1], *key)] == [51.67, 51.03, 51.32]
    stated_first = ("wrn94_16_bartoldson2024", "resnet18", "rslad", "best", "autoattack")
    assert [e.value for e in published.find_published(["rslad_cifar10_saturation"], *stated_first)] == [47.11, 44.07]
    assert published.find_published(["rslad_cifar100_white_box", "teachers"], *key) == []
    assert published.find_published([], *key) == []


def test_black_box_numbers_stand_beside_either_checkpoint():
    """The paper does not say which checkpoint was attacked."""
    right = {"clean": 900, "transfer_pgd20": 640, "transfer_cw": 638, "square": 580}
    runs = {("big", "resnet18", "rslad", 0, name): right for name in ("best", "last")}
    spec = replace(SPEC, metrics=list(right), published=["rslad_cifar10_black_box"])
    text = tables.markdown(tables.tidy(outcomes(runs), spec), spec)
    for lines in list(grids(text).values())[:2]:
        assert lines[0] == ["method", "Clean", "transfer PGD-20", "transfer CW", "Square", "Square, best less last"]
        assert lines[2] == ["↳ published", "", "64.11 P, -0.11", "63.84 P, -0.04", "57.90 P, +0.10", ""]
    assert "the checkpoint attacked is not known" in text
    assert "No published number" not in text  # though none is for clean images


def test_legend_says_what_a_reader_must_know(table):
    text = tables.markdown(table, SPEC)
    assert text.startswith(
        "paper: accuracy in percent on 1000 test images, linf eps 8/255, official protocol; one seed. "
        "best: chosen on the test set, as the paper's code does; last: after the last epoch.\n"
    )
    legend = {line.partition(" ")[2].partition(":")[0]: line for line in text.splitlines() if line.startswith("- ")}
    assert all(f"{mark} {means}" in legend["Marks"] for mark, means in published.MARKS.items())
    assert "RSLAD (Zi 2021), Table 3 (P)" in legend["Sources"]
    assert "RobustBench, model_info (C)" in legend["Sources"]
    assert "eps 0.031" in legend["Notes"]
    assert text.endswith("No published number to compare with is known for rslad-alpha-0.5.\n")


def test_named_table_shows_its_part(table):
    view = tables.named_tables(table, SPEC)["main_claim"]
    assert list(view.table.columns) == tables.COLUMNS
    keys = view.table[["teacher", "student", "method", "checkpoint", "metric"]].apply(tuple, axis=1).tolist()
    assert keys == [
        ("big", "-", "trades", "best", "clean"), ("big", "-", "trades", "best", "autoattack"),
        ("none", "resnet18", "trades", "last", "clean"), ("none", "resnet18", "trades", "last", "autoattack"),
        ("big", "resnet18", "rslad", "last", "clean"), ("big", "resnet18", "rslad", "last", "autoattack"),
    ]  # fmt: skip
    text = tables.markdown(*view)
    assert text.startswith("## Against AutoAttack\n\npaper: accuracy in percent on 1000 test images")
    printed = grids(text)
    assert list(printed) == ["Student resnet18, teacher big: last"]
    lines = printed["Student resnet18, teacher big: last"]
    assert lines[0] == ["method", "Clean", "AutoAttack", "AutoAttack, best less last"]
    assert [line[0] for line in lines[1:]] == [
        "teacher (trades, best)", "↳ published", "trades", "↳ published",
        "rslad", "↳ published", "↳ SZU-252 (2023)", "↳ PeerAiD (Jung 2024)",
    ]  # fmt: skip
    assert "is known for" not in text
    whole = tables.named_tables(table, SPEC)["everything"]
    pd.testing.assert_frame_equal(whole.table, table)
    assert tables.markdown(*whole) == "## All\n\n" + tables.markdown(table, SPEC)


def test_named_table_of_one_teacher(runs):
    """Another teacher's comparisons are left out, and with them its own row; runs without a teacher stay."""
    more = {("other", *keys[1:]): right for keys, right in runs.items() if keys[0] == "big"}
    comparisons = [Comparison(teacher, student) for teacher in ("big", "other") for student in ("resnet18", "mobile")]
    spec = replace(SPEC, comparisons=comparisons, tables={"one": {"title": "One", "teachers": ["other"]}})
    view = tables.named_tables(tables.tidy(outcomes({**runs, **more}), spec), spec)["one"]
    assert view.spec.comparisons == comparisons[2:]
    assert set(view.table["teacher"]) == {"other", "none"}
    assert set(view.table["method"]) == set(SPEC.methods)
    assert [heading.split(":")[0] for heading in grids(tables.markdown(*view))][::2] == [
        "Student resnet18, teacher other", "Student mobile, teacher other",
    ]  # fmt: skip


def test_students_without_distilled_runs_stand_alone_once(runs):
    """Not once for every teacher; but a table of one teacher shows only students that learnt from it."""
    more = {("other", *keys[1:]): right for keys, right in runs.items() if keys[:2] == ("big", "resnet18")}
    views = {
        "alone": {"title": "A", "methods": ["sat", "trades"], "students": ["resnet18"]},
        "both": {"title": "B", "methods": ["sat", "rslad"], "checkpoints": ["best"]},
        "other": {"title": "C", "methods": ["sat", "rslad"], "teachers": ["other"]},
        "other_alone": {"title": "D", "methods": ["sat"], "teachers": ["other"]},
    }
    comparisons = [Comparison("big", "resnet18"), Comparison("other", "resnet18"), Comparison("big", "mobile")]
    spec = replace(SPEC, comparisons=comparisons, tables=views)
    kept = {keys: right for keys, right in runs.items() if keys[1:3] != ("mobile", "rslad")}
    found = tables.named_tables(tables.tidy(outcomes({**kept, **more}), spec), spec)
    assert {name: view.spec.comparisons for name, view in found.items()} == {
        "alone": [("none", "resnet18")],
        "both": [("big", "resnet18"), ("other", "resnet18"), ("none", "mobile")],
        "other": [("other", "resnet18")],
        "other_alone": [("none", "resnet18"), ("none", "mobile")],
    }
    assert set(found["alone"].table["teacher"]) == {"none"}
    printed = grids(tables.markdown(*found["alone"]))
    assert list(printed) == ["Student resnet18, teacher none: best", "Student resnet18, teacher none: last"]
    lines = next(iter(printed.values()))
    assert [line[0] for line in lines] == ["method", "sat", "↳ published", "trades", "↳ published"]
    for view in found.values():
        check_latex(tables.latex(*view))


def test_named_table_without_runs_says_so(table):
    view = tables.named_tables(table, SPEC)["empty"]
    assert view.table.empty
    assert view.table.to_csv(index=False).strip() == ",".join(tables.COLUMNS)
    text = tables.markdown(*view)
    assert text == (
        "## 50 % of_nothing & more\n\npaper: linf eps 8/255, official protocol.\n\n"
        "No run of this experiment belongs to this table.\n"
    )
    check_latex(tables.latex(*view))
    assert "No run of this experiment belongs to this table." in tables.latex(*view)


def test_without_references_tables_stay_as_they_are(runs):
    plain = replace(SPEC, published=[], selection="chosen on the validation split")
    table = tables.tidy(outcomes(runs), plain)
    assert table[["published", "difference", "mark"]].isna().all(axis=None)
    text = tables.markdown(table, plain)
    printed = grids(text)
    assert list(printed) == ["Student resnet18, teacher big", "Student mobile, teacher big"]
    lines = printed["Student resnet18, teacher big"]
    assert lines[0][:2] == ["method", "Clean (best)"]
    assert [line[0] for line in lines[1:]] == ["teacher (trades, best)", *SPEC.methods]
    assert all(len(line) == 1 + 2 * len(METRICS) + 1 for line in lines)  # robust overfitting last
    assert "best: chosen on the validation split; last" in text
    assert "ublished" not in text + tables.latex(table, plain)
    assert "With ours stand" not in tables.latex(table, plain)
    check_latex(tables.latex(table, plain))


def test_references_that_know_nothing_are_said_to(runs):
    """As for GACD, whose numbers could not be read: the table looks as without references, and says so."""
    some = {key: right for key, right in runs.items() if key[1:3] == ("resnet18", "rslad-alpha-0.5")}
    spec = replace(SPEC, comparisons=[Comparison("big", "resnet18")])
    table = tables.tidy(outcomes(some), spec)
    text = tables.markdown(table, spec)
    assert list(grids(text)) == ["Student resnet18, teacher big"]
    assert text.endswith("\n- No published number to compare with is known for rslad-alpha-0.5.\n")
    assert "known for rslad-alpha-0.5." in tables.latex(table, spec)


# LaTeX


def check_latex(text: str) -> None:
    """Environments and braces are closed, special characters escaped, every row as wide as its tabular."""
    open_environments = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            open_environments.append(name)
        else:
            assert open_environments.pop() == name
    assert open_environments == []
    bare = re.sub(r"\\[#$%&_{}]", "", text)
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert not set("_#%") & set(bare)
    assert bare.count("$") % 2 == 0
    assert text.isascii()
    for columns, body in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", bare, re.DOTALL):
        for row in re.findall(r"^(.+)\\\\$", body, re.MULTILINE):
            spans = sum(int(many) - 1 for many in re.findall(r"\\multicolumn\{(\d+)\}", row))
            assert row.count("&") + 1 + spans == len(columns)
    outside = re.sub(r"\\begin\{tabular\}.*?\\end\{tabular\}", "", bare, flags=re.DOTALL)
    assert "&" not in outside


def test_latex_is_sound(table):
    text = tables.latex(table, SPEC)
    check_latex(text)
    assert text.count(r"\begin{table}") == 2
    assert text.count(r"\textit{best}") == text.count(r"\textit{last}") == 2
    titles = r" & Clean & FGSM & PGD\_SAT & PGD\_TRADES & CW & AutoAttack & AutoAttack, best less last \\"
    assert titles in text
    assert r"\quad published & 84.92 C, +0.18 &  &  &  &  & 53.08 C, +0.02 &  \\" in text
    assert re.search(r"\\quad published & .*51\.49 P, (\$-\$|\+)\d+\.\d\d &  \\\\", text)
    assert text.count(r"{\footnotesize best less last: robust overfitting") == 2
    assert text.count("With ours stand") == 2
    check_latex(tables.latex(*tables.named_tables(table, SPEC)["main_claim"]))
    assert r"\caption{Against AutoAttack. paper: accuracy" in tables.latex(
        *tables.named_tables(table, SPEC)["main_claim"]
    )


def test_latex_shows_the_spread_over_seeds(runs):
    seeds = {(*keys[:3], 1, keys[4]): {m: min(n + 10, IMAGES) for m, n in r.items()} for keys, r in runs.items()}
    table = tables.tidy(outcomes({**runs, **{k: r for k, r in seeds.items() if k[1] != TEACHER_ROW}}), SPEC)
    text = tables.latex(table, SPEC)
    check_latex(text)
    assert r"$\pm$ 0.71" in text
    assert r"mean $\pm$ sd over 2 seeds" in text


def test_robust_overfitting_is_best_less_last(table, runs):
    """Compares the rows of `last` of every metric with best less last by hand."""
    means = table.set_index(["teacher", "student", "method", "checkpoint", "metric"])["mean"]
    for row in table.itertuples():
        best = means.get((row.teacher, row.student, row.method, "best", row.metric))
        if row.checkpoint == "last" and best is not None:
            assert row.best_less_last == pytest.approx(best - row.mean, abs=2e-4)
        else:
            assert math.isnan(row.best_less_last)
    only_best = table[table["checkpoint"].eq("best")].assign(best_less_last=math.nan)
    assert "best less last" in tables.markdown(table, SPEC)
    assert "best less last" not in tables.markdown(only_best, SPEC)
