"""The shipped experiments before anything runs: every job of theirs, and what the two protocols resolve to.

Jobs are counted three ways: by `snakemake -n` where neither data nor checkpoints are there, by `plan`, and here from
the YAML. The official settings stand here as they were read in the released codes.
"""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import REPOSITORY, WORKFLOW, environment
from ruamel.yaml import YAML

from robust_distillation.columns import TEACHER_ROW
from robust_distillation.config import Experiment, load
from robust_distillation.config.resolving import TRICKS
from robust_distillation.pipeline.step import TABLES
from robust_distillation.planning import jobs as planned
from robust_distillation.reference.checkpoints import SOURCES
from robust_distillation.reporting import tables
from robust_distillation.reporting.table_spec import TableSpec
from robust_distillation.training.counting import calls_in_step
from robust_distillation.training.schedule import is_validation_epoch, learning_rate, validation_epochs

EXPERIMENTS = [REPOSITORY / "params.yaml", *sorted((REPOSITORY / "experiments").glob("*.yaml"))]
ALONE = ("natural", "fgsm_rs", "n_fgsm", "fgsm_pgi", "sat", "trades", "mart", "peeraid", "lbgat", "adr")
# By role, what is cached of a teacher; where nothing is said, a method has one teacher, which is not cached.
LOGITS = {"teacher": {"logits"}}
CACHES = {
    "kd": LOGITS, "ard": LOGITS, "iad": LOGITS, "rslad": LOGITS, "absld": LOGITS, "dgad": LOGITS, "cgard": LOGITS,
    "crdnd": LOGITS, "ckd": LOGITS, "tald": LOGITS, "crd": {"teacher": {"features"}},
    "gacd": {"teacher": {"logits", "features"}}, "mtard": {"robust": set(), "natural": {"logits"}},
    "b_mtard": {"robust": set(), "natural": {"logits"}}, "akd2": {"robust": set(), "natural": set()},
    "iad2": {"robust": set(), "natural": set()}, "ciard": {"robust": set(), "natural": {"logits"}},
}  # fmt: skip
# Students, jobs in all. What changes one of these numbers changes what a study costs.
TOTALS = {
    "params": (24, 162),
    "absld_cifar10": (9, 28),
    "adaad_cifar10": (36, 85),
    "adaad_cifar100": (21, 52),
    "adr_cifar10": (12, 31),
    "adr_cifar100": (12, 31),
    "akd2_cifar10": (15, 42),
    "benchmark_cifar10": (288, 886),
    "benchmark_cifar100": (288, 886),
    "cgard_cifar10": (24, 58),
    "cgard_cifar100": (24, 58),
    "ciard_cifar10": (6, 24),
    "cifar10_jpeg": (12, 48),
    "ckd_cifar100": (12, 37),
    "crdnd_cifar10": (18, 46),
    "dgad_cifar10": (18, 49),
    "dgad_cifar100": (12, 34),
    "fashion_mnist": (18, 85),
    "few_labels_cifar10": (6, 24),
    "gacd_cifar10": (102, 527),
    "gacd_cifar100": (90, 467),
    "gacd_stl10": (51, 272),
    "heterogeneous_teachers_cifar10": (15, 46),
    "igdm_cifar10": (18, 46),
    "igdm_cifar100": (36, 82),
    "lbgat_cifar10": (18, 43),
    "lbgat_cifar100": (18, 43),
    "mtard_cifar10": (24, 61),
    "mtard_cifar100": (24, 61),
    "peeraid_cifar10": (12, 34),
    "peeraid_cifar100": (12, 34),
    "rslad_cifar10": (111, 371),
    "rslad_cifar100": (39, 132),
    "saad_cifar10": (27, 67),
    "saad_cifar100": (15, 40),
    "tald_cifar100": (6, 22),
}


# The jobs of an experiment, from its YAML alone


def parsed(path: Path) -> dict:
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


def needs_no_teacher(kind: str, settings: dict) -> bool:
    if kind == "rslad":
        return not {"clean_labels", "adversarial_labels", "inner_labels"} - {
            key for key, value in settings.items() if value in ("hard", "student")
        }
    return kind in ALONE


def caches_of(entry: dict, kind: str) -> dict[str, set[str]]:
    if kind == "teacher_ensemble":
        return {role: {"logits"} for role in entry.get("members", ("first", "second"))}
    return CACHES.get(kind, {"teacher": set()})


def roles_of(raw: dict, teacher: str) -> dict[str, str]:
    return raw["teachers"][teacher].get("roles", {"teacher": teacher})


def excluded(rules: list[dict], run: dict) -> bool:
    def matches(rule: dict) -> bool:
        return all(run[key] == value or (isinstance(value, list) and run[key] in value) for key, value in rule.items())

    return any(matches(rule) for rule in rules)


def runs_of(raw: dict) -> list[dict]:
    found = []
    for method, entry in raw["methods"].items():
        settings = entry or {}
        kind = settings.get("method", method)
        roles = set(caches_of(settings, kind))
        able = [name for name in raw.get("teachers", {}) if roles <= set(roles_of(raw, name))]
        for teacher in ["none"] if needs_no_teacher(kind, settings) else able:
            for student in raw["students"]:
                for seed in raw["seeds"]:
                    run = {"teacher": teacher, "student": student, "method": method, "seed": seed}
                    if not excluded(raw.get("exclude", []), run):
                        found.append(run)
    return found


def rules_of(raw: dict) -> dict[str, int]:
    """How many jobs each rule must have."""
    runs, targets = runs_of(raw), len(raw.get("transfer", {}))
    networks = [entry for entry in raw.get("teachers", {}).values() if "roles" not in entry]
    models, structure = len(runs) + len(networks), int("structure" in raw)
    entries = {name: entry or {} for name, entry in raw["methods"].items()}
    caches = {
        (roles_of(raw, run["teacher"])[role], output)
        for run in runs
        if run["teacher"] != "none"
        for role, outputs in caches_of(
            entries[run["method"]], entries[run["method"]].get("method", run["method"])
        ).items()
        for output in outputs
    }
    # A teacher's outputs on views that are drawn anew in every epoch: for each seed, and for the tuning's short runs.
    fresh = {
        (roles_of(raw, run["teacher"])[role], output, seed)
        for run in runs
        if run["teacher"] != "none" and "augmentation" in entries[run["method"]].get("training", {})
        for role, outputs in caches_of(
            entries[run["method"]], entries[run["method"]].get("method", run["method"])
        ).items()
        for output in outputs
        for seed in (run["seed"], *(["tuning"] if "tuning" in raw else []))
    }
    imported = sum("imported" in teacher for teacher in networks)
    tuned = {(run["teacher"], run["student"], run["method"]) for run in runs if "tuning" in raw}
    candidates = math.prod(len(values) for values in raw.get("tuning", {}).get("grid", {}).values())
    evaluation = raw["evaluation"]
    shards = min(evaluation.get("jobs", 1), -(-evaluation.get("images", 10**9) // evaluation["block_size"]))
    counted = {
        "prepare_data": 1,
        "prepare_target": targets,
        "prepare_extra": int("extra" in raw["dataset"]),
        "import_teacher": imported,
        "train_teacher": len(networks) - imported,
        "label_extra": int("labelled_by" in raw["dataset"].get("extra", {})),
        "fill_cache": len(caches),
        "fill_records": len(fresh),
        "tune": len(tuned) * candidates,
        "choose": len(tuned),
        "train_student": len(runs),
        "attack": models * shards,
        "merge_outcomes": models * (shards > 1),
        "structure": models * structure,
        "robustness": models * ("robustness" in raw),
        "transfer": models * targets,
        "report_structure": structure,
        "report_transfer": targets,
        "report_tuning": int("tuning" in raw),
        "tabulate": 1,
        "draw_figures": 1,
        "compare": 1,
        "track": 1,
        "report_html": 1,
        "index": 1,
    }
    return {rule: count for rule, count in counted.items() if count}


# The jobs that Snakemake and `plan` find


@pytest.fixture(scope="module")
def without_data(tmp_path_factory) -> Path:
    """What a dry run needs, and neither data nor checkpoints."""
    folder = tmp_path_factory.mktemp("without-data")
    for name in WORKFLOW:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, folder / name)
    (folder / "sharded.yaml").write_text("name: sharded\nevaluation: {jobs: 3, block_size: 150}\n")
    return folder


def dry_run(tree: Path, *config: str) -> dict[str, int]:
    """The table `Job stats` of `snakemake -n`; nothing may be written but Snakemake's own folder."""
    before = {path for path in tree.iterdir() if path.name != ".snakemake"}
    command = [sys.executable, "-m", "snakemake", "-n", "--quiet", "rules", "--config", *config]
    result = subprocess.run(command, cwd=tree, env=environment(tree), capture_output=True, text=True, timeout=300)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    assert {path for path in tree.iterdir() if path.name != ".snakemake"} == before
    table = re.search(r"Job stats:\njob +count\n[- ]+\n(.*?)\n\n", output, re.DOTALL)[1]
    found = {line.split()[0]: int(line.split()[1]) for line in table.splitlines()}
    assert found.pop("total") == sum(found.values())
    assert found.pop("all") == 1
    return found


STEPS = {
    "prepare-data": ("prepare_data", "prepare_target"),
    "prepare-extra": ("prepare_extra",),
    "import-teacher": ("import_teacher",),
    "label-extra": ("label_extra",),
    "train-teacher": ("train_teacher",),
    "fill-cache": ("fill_cache",),
    "fill-records": ("fill_records",),
    "tune": ("tune",),
    "choose": ("choose",),
    "train-student": ("train_student",),
    "attack": ("attack", "merge_outcomes"),
    "structure": ("structure",),
    "robustness": ("robustness",),
    "transfer": ("transfer",),
    "tables, figures, tracking": (
        "tabulate",
        "draw_figures",
        "compare",
        "track",
        "report_structure",
        "report_transfer",
        "report_tuning",
        "report_html",
        "index",
    ),
}


def by_step(rules: dict[str, int]) -> dict[str, int]:
    """Jobs as `plan` groups them."""
    counted = {step: sum(rules.get(rule, 0) for rule in group) for step, group in STEPS.items()}
    assert sum(counted.values()) == sum(rules.values())
    return {step: count for step, count in counted.items() if count}


def waits_drawn(tree: Path, *config: str) -> Counter[tuple[str, str]]:
    """How often a job of one step waits for one of another in the graph that Snakemake draws, but for the tables."""
    command = [sys.executable, "-m", "snakemake", "--dag", "dot", "--config", *config]
    result = subprocess.run(command, cwd=tree, env=environment(tree), capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    step = {rule: name for name, rules in STEPS.items() for rule in rules}
    rules = dict(re.findall(r'^\t(\d+)\[label = "(\w+)', result.stdout, re.MULTILINE))
    pairs = [[step.get(rules[end]) for end in pair] for pair in re.findall(r"^\t(\d+) -> (\d+)", result.stdout, re.M)]
    return Counter((before, after) for before, after in pairs if after not in (None, TABLES))


def waits(jobs: dict[str, planned.Job]) -> Counter[tuple[str, str]]:
    pairs = [(jobs[need].step, job.step) for job in jobs.values() for need in job.needs if job.step != TABLES]
    return Counter(pairs)


def test_totals_are_known_for_every_experiment():
    assert {path.stem for path in EXPERIMENTS} == set(TOTALS)


# One of each shape: tuning and transfer, many tables, several teachers of a student, extra images, the whole field. Of
# the others the same rules are asked in this process, where it takes a tenth of the time.
BY_SNAKEMAKE = ("params", "gacd_cifar10", "mtard_cifar10", "few_labels_cifar10", "benchmark_cifar10")


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
@pytest.mark.slow
def test_dry_run_without_data_shows_every_job(path, without_data, monkeypatch):
    assert not (without_data / "data").exists()
    assert not (without_data / "models").exists()
    expected = rules_of(parsed(path))
    assert (expected["train_student"], sum(expected.values())) == TOTALS[path.stem]
    file = path.relative_to(REPOSITORY)
    if path.stem in BY_SNAKEMAKE:
        assert dry_run(without_data, f"experiment={file}") == expected
    monkeypatch.chdir(without_data)
    experiment = load(file)
    assert planned.by_step(planned.jobs_of(experiment), lambda _: 1) == by_step(expected)
    runs = {(run.teacher, run.student, run.method, run.seed) for run in experiment.runs}
    assert runs == {tuple(run.values()) for run in runs_of(parsed(path))}


@pytest.mark.slow
def test_dry_run_of_shared_attacks_shows_every_job(without_data, monkeypatch):
    raw = parsed(REPOSITORY / "params.yaml")
    raw["evaluation"] |= {"jobs": 3, "block_size": 150}
    expected = rules_of(raw)
    assert (expected["attack"], expected["merge_outcomes"]) == (50, 25)  # 300 images are two blocks
    assert dry_run(without_data, "experiment=params.yaml", "overlay=sharded.yaml") == expected
    monkeypatch.chdir(without_data)
    found = planned.jobs_of(load("params.yaml", "sharded.yaml"))
    assert planned.by_step(found, lambda _: 1) == by_step(expected)
    assert waits(found) == waits_drawn(without_data, "experiment=params.yaml", "overlay=sharded.yaml")


# Teachers that a person must fetch

BY_HAND = {
    **dict.fromkeys(
        (
            "rslad_cifar10", "gacd_cifar10", "mtard_cifar10", "absld_cifar10", "peeraid_cifar10", "cgard_cifar10",
            "ciard_cifar10", "crdnd_cifar10", "heterogeneous_teachers_cifar10",
        ),
        "trades_teacher",
    ),
    **dict.fromkeys(("adaad_cifar10", "dgad_cifar10", "igdm_cifar10"), "ltd_cifar10"),
    **dict.fromkeys(("adaad_cifar100", "dgad_cifar100"), "ltd_cifar100"),
    **dict.fromkeys(("igdm_cifar100", "saad_cifar100"), "bdm_cifar100"),
    "saad_cifar10": "saad_cifar10",
}  # fmt: skip


def fetched_by_hand(experiment: Experiment) -> list[str]:
    return [
        name
        for name, teacher in experiment.teachers.items()
        if teacher.imported and SOURCES[teacher.imported.source].url is None
    ]


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_overlay_spares_what_must_be_fetched_by_hand(path, without_data, monkeypatch):
    """Checks that an overlay changes nothing else: students, methods and the names of the teachers stay."""
    monkeypatch.chdir(without_data)
    experiment = load(path)
    assert bool(fetched_by_hand(experiment)) == (path.stem in BY_HAND)
    if path.stem in BY_HAND:
        overlay = REPOSITORY / f"experiments/overlays/{BY_HAND[path.stem]}.yaml"
        spared = load(path, overlay)
        assert fetched_by_hand(spared) == []
        assert (spared.runs, list(spared.teachers)) == (experiment.runs, list(experiment.teachers))
        assert path.stem in overlay.read_text() or BY_HAND[path.stem] == "trades_teacher"


@pytest.mark.parametrize("file", ["rslad_cifar10", "gacd_cifar10"])
def test_the_teacher_of_the_overlay_is_trained_as_trades_code_does(file):
    """Under both protocols: the budget that `official` gives to TRADES."""
    overlay = REPOSITORY / "experiments/overlays/trades_teacher.yaml"
    experiment = load(REPOSITORY / f"experiments/{file}.yaml", overlay)
    recipe = experiment.teachers["wrn-34-10"].recipe
    training = flat(recipe.training)
    assert training == EVERYWHERE | TRADES
    assert recipe.method.settings.model_dump() == {"beta": 6.0, "clean_first": True}
    assert "wrn-34-10 (trained here by trades)" in experiment.teachers_text


# The official protocol

RSLAD = {
    "epochs": 300,
    "milestones": [215, 260, 285],
    "kl_scale": "tenth",
    "start": "gaussian",
    "project_start": False,
    "by": "pgd_trades",
    "every": 20,
    "every_epoch_after": 214,
}
SAT = {
    "epochs": 205,
    "milestones": [103, 154],
    "weight_decay_on": "weights",
    "drop_last": True,
    "mode": "train",
    "by": "pgd_trades",
}
TRADES = {
    "epochs": 76,
    "milestones": [74],
    "eps": 0.031,
    "step_size": 0.007,
    "start": "gaussian",
    "project_start": False,
    "by": "pgd_trades",
}
MART = {
    "epochs": 120,
    "learning_rate": 0.01,
    "weight_decay": 3.5e-3,
    "milestones": [74, 89, 99],
    "eps": 0.031,
    "step_size": 0.007,
    "start": "gaussian",
    "project_start": False,
    "by": "pgd_trades",
}
WIDE_MART = MART | {"epochs": 90, "learning_rate": 0.1, "weight_decay": 7e-4, "milestones": [74, 89]}
ARD = {
    "epochs": 200,
    "milestones": [100, 150],
    "decay": "from_initial",
    "kl_scale": "mean",
    "mode": "train",
    "project_start": False,
    "by": "pgd_trades",
}
IAD = ARD | {"kl_scale": "sum", "by": "pgd10"}
NATURAL = {
    "epochs": 300,
    "milestones": [215, 260, 285],
    "by": "pgd_trades",
    "every": 20,
    "every_epoch_after": 214,
    "eps": None,  # makes no adversarial image
}
EVERYWHERE = {
    "batch_size": 128,
    "learning_rate": 0.1,
    "optimizer": {"name": "SGD"},
    "augmentation": {"name": "crop_flip"},
    "schedule": {
        "name": "multistep",
        "warmup": 0.0,
        "per": "step",
        "start": None,
        "end": None,
        "peak": None,
        "anneal": None,
    },
    "averaging": None,
    "weight_perturbation": None,
    "label_smoothing": 0.0,
    "momentum": 0.9,
    "weight_decay": 2e-4,
    "weight_decay_on": "all",
    "drop_last": False,
    "factor": 0.1,
    "decay": "compounded",
    "kl_scale": "sum",
    "eps": 8 / 255,
    "step_size": 2 / 255,
    "start": "uniform",
    "mode": "eval",
    "project_start": True,
    "every": 1,
    "every_epoch_after": None,
}
RSLAD_SETTINGS = {
    "alpha": 5 / 6,
    "temperature": 1.0,
    "log_constant": 1e-5,
    "clean_labels": "teacher",
    "adversarial_labels": "teacher",
    "inner_labels": "teacher",
    "igdm": None,
}
MART_SETTINGS = {"beta": 5.0, "log_constant": 1e-12, "clean_first": True}
ARD_SETTINGS = {"alpha": 1.0, "temperature": 30.0, "tempered_cross_entropy": False, "igdm": None}
IAD_SETTINGS = {
    "beta": 0.1,
    "temperature": 1.0,
    "begin": 60,
    "teacher_weight": "one",
    "repeat_passes": True,
    "igdm": None,
}
STUDENTS = ("resnet", "mobilenet_v2", "wide_resnet", "dm_wide_resnet")
NARROW, WIDE = STUDENTS[:2], STUDENTS[2:]
# Method, datasets, students, how it trains where that is not EVERYWHERE, and its own settings.
RELEASED = [
    ("rslad", ("cifar10", "cifar100"), STUDENTS, RSLAD, RSLAD_SETTINGS),
    ("sat", ("cifar10", "cifar100"), STUDENTS, SAT, {}),
    ("trades", ("cifar10", "cifar100"), STUDENTS, TRADES, {"beta": 6.0, "clean_first": True}),
    ("mart", ("cifar10", "cifar100"), NARROW, MART, MART_SETTINGS),
    ("mart", ("cifar10", "cifar100"), WIDE, WIDE_MART, MART_SETTINGS | {"beta": 6.0}),
    ("ard", ("cifar10",), STUDENTS, ARD, ARD_SETTINGS),
    ("ard", ("cifar100",), STUDENTS, ARD | {"batch_size": 256}, ARD_SETTINGS),
    ("iad", ("cifar10", "cifar100"), STUDENTS, IAD, IAD_SETTINGS),
    ("natural", ("cifar10", "cifar100"), STUDENTS, NATURAL, {}),
]


def official(folder: Path, data: str = "cifar10", **changes: Any) -> Experiment:
    raw = {
        "name": "protocols",
        "protocol": "official",
        "dataset": {"name": data, "padding": 4},
        "threat_model": {"norm": "linf", "eps": "8/255"},
        "seeds": [0],
        "teachers": {"robust": {"architecture": "resnet", "trained_by": {"method": "sat"}}},
        "students": {name: {} for name in STUDENTS},
        "methods": {name: {} for name in dict.fromkeys(row[0] for row in RELEASED)},
        "evaluation": {"attacks": ["fgsm"]},
        **changes,
    }
    path = folder / "official.yaml"
    with open(path, "w", encoding="utf-8") as stream:
        YAML(typ="safe", pure=True).dump(raw, stream)
    return load(path)


def flat(training: Any) -> dict[str, Any]:
    """What trains, in one mapping; the steps of APGD-CE mean nothing to the other ways to select."""
    found = training.model_dump()
    inner, selection = found.pop("inner_attack"), found.pop("selection")
    assert inner.pop("steps") == 10
    assert selection.pop("by") == "apgd" or selection.pop("steps") == 10
    return found | inner | selection | {"by": training.selection.by}


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_official_settings_are_those_of_the_released_codes(dataset, tmp_path):
    experiment = official(tmp_path, dataset)
    seen = set()
    for method, datasets, students, trained, settings in RELEASED:
        for student in students if dataset in datasets else ():
            recipe = experiment.recipes[method, student]
            assert flat(recipe.training) == EVERYWHERE | trained, (method, student)
            assert recipe.method.settings.model_dump() == settings, (method, student)
            seen.add((method, student))
    assert seen == set(experiment.recipes)
    assert flat(experiment.teachers["robust"].recipe.training) == EVERYWHERE | SAT


def test_official_rslad_looks_where_its_code_does(tmp_path):
    training = official(tmp_path).training_of("rslad")
    looked = [epoch for epoch in range(1, 301) if is_validation_epoch(training, epoch)]
    assert looked == [*range(20, 201, 20), *range(215, 301)]
    assert validation_epochs(training) == len(looked) == 96


def test_official_rates_fall_as_in_the_released_codes(tmp_path):
    experiment = official(tmp_path)
    expected = {
        "rslad": {215: 0.1, 216: 0.01, 260: 0.01, 261: 1e-3, 285: 1e-3, 286: 1e-4, 300: 1e-4},
        "sat": {103: 0.1, 104: 0.01, 154: 0.01, 155: 1e-3, 205: 1e-3},
        "trades": {74: 0.1, 75: 0.01, 76: 0.01},
        "mart": {74: 0.01, 75: 1e-3, 89: 1e-3, 90: 1e-4, 99: 1e-4, 100: 1e-5, 120: 1e-5},
        "ard": {100: 0.1, 101: 0.01, 150: 0.01, 151: 0.01, 200: 0.01},
        "iad": {100: 0.1, 101: 0.01, 150: 0.01, 151: 0.01, 200: 0.01},
    }
    for method, rates in expected.items():
        training = experiment.training_of(method, "resnet")
        assert {epoch: learning_rate(training, epoch) for epoch in rates} == pytest.approx(rates), method
    wide = experiment.training_of("mart", "wide_resnet")
    assert [learning_rate(wide, epoch) for epoch in (74, 75, 89, 90)] == pytest.approx([0.1, 0.01, 0.01, 1e-3])


def test_official_iad_sends_images_through_again(tmp_path):
    """x' and x each once without gradient; once it has begun x with it and again without."""
    experiment = official(tmp_path)
    recipe, student = experiment.recipes["iad", "resnet"], experiment.students["resnet"]
    calls = [
        calls_in_step(recipe.method.settings, recipe.training, experiment.threat_model, experiment.info, student, epoch)
        for epoch in recipe.method.settings.phases()
    ]
    passes = [{kind: found["student", "student", kind] for kind in ("train", "ask")} for found in calls]
    assert recipe.method.settings.phases() == (1, 61)
    assert passes == [{"train": 1, "ask": 2}, {"train": 2, "ask": 2}]
    assert [found["teacher", "teacher", "ask"] for found in calls] == [0, 1]


def test_the_files_own_settings_come_before_the_official_ones(tmp_path):
    """Official, then the experiment's training, then the method's or teacher's."""
    methods = {
        "rslad": {"training": {"epochs": 400, "inner_attack": {"steps": 7}}, "alpha": 0.5},
        "longer": {"method": "sat", "training": {"momentum": 0.8}},
        "sat": {},
    }
    experiment = official(
        tmp_path,
        training={"epochs": 320, "momentum": 0.7, "inner_attack": {"step_size": "4/255"}},
        methods=methods,
        teachers={
            "robust": {"architecture": "resnet", "trained_by": {"method": "sat"}, "training": {"epochs": 330}},
            "plain": {"architecture": "resnet", "trained_by": {"method": "natural"}},
        },
    )
    rslad, longer, sat = (experiment.training_of(name) for name in methods)
    assert (rslad.epochs, longer.epochs, sat.epochs) == (400, 320, 320)
    assert (rslad.momentum, longer.momentum, sat.momentum) == (0.7, 0.8, 0.7)
    assert (rslad.inner_attack.steps, sat.inner_attack.steps) == (7, 10)
    assert {training.inner_attack.step_size for training in (rslad, longer, sat)} == {4 / 255}
    assert (rslad.milestones, longer.milestones) == ([215, 260, 285], [103, 154])  # what nobody gave stays official
    assert (rslad.kl_scale, sat.kl_scale) == ("tenth", "sum")
    settings = experiment.recipes["rslad", "resnet"].method.settings
    assert (settings.alpha, settings.log_constant) == (0.5, 1e-5)
    teachers = {name: teacher.recipe.training for name, teacher in experiment.teachers.items()}
    assert (teachers["robust"].epochs, teachers["plain"].epochs) == (330, 320)
    assert teachers["robust"].weight_decay_on == "weights"


def test_settings_of_released_codes_do_not_reach_the_controlled_protocol():
    """The released codes' quirks must not reach the fair comparison."""
    experiment = load(REPOSITORY / "params.yaml")
    for recipe in experiment.recipes.values():
        assert recipe.method.settings == type(recipe.method.settings)(
            **parsed(REPOSITORY / "params.yaml")["methods"][recipe.method.kind]
        )


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_controlled_gives_all_runs_one_budget_and_official_does_not(path, without_data, monkeypatch):
    monkeypatch.chdir(without_data)
    experiment = load(path)
    tricks = set(TRICKS) if experiment.file.protocol == "controlled" else set()  # which methods may differ in
    budgets = {recipe.training.model_dump_json(exclude=tricks) for recipe in experiment.recipes.values()}
    if experiment.file.protocol == "controlled":
        assert len(budgets) == 1
        for key, value in parsed(path)["training"].items():
            if not isinstance(value, dict):
                assert getattr(next(iter(experiment.recipes.values())).training, key) == value
    elif path.stem.startswith("rslad"):
        assert len(budgets) == len({recipe.method.kind for recipe in experiment.recipes.values()}) + 2 * (
            "sat-300" in experiment.methods
        )


def test_official_trains_on_all_training_images_and_selects_on_the_test_split(tmp_path):
    experiment = official(tmp_path)
    assert experiment.selects_on_test
    assert [experiment.size(split) for split in ("train", "validation", "test")] == [50000, 10000, 10000]
    controlled = load(REPOSITORY / "experiments/gacd_cifar10.yaml")
    assert not controlled.selects_on_test
    assert [controlled.size(split) for split in ("train", "validation", "test")] == [45000, 5000, 10000]
    limited = official(tmp_path, dataset={"name": "cifar10", "limit": {"train": 48000, "validation": 300}})
    assert [limited.size(split) for split in ("train", "validation", "test")] == [48000, 300, 10000]


@pytest.mark.parametrize(
    ("file", "protocol", "selection"),
    [
        ("rslad_cifar100", "official protocol", "best: chosen on the test split, as in the papers' codes"),
        ("gacd_cifar100", "controlled protocol", "best: chosen on the validation split"),
    ],
)
def test_protocol_and_selection_stand_in_every_caption(file, protocol, selection):
    spec = TableSpec(**load(REPOSITORY / f"experiments/{file}.yaml").matrix())
    [teacher, student], metric = spec.comparisons[0], spec.metrics[-1]
    common = {"teacher": teacher, "protocol": spec.protocol, "metric": metric, "n_seeds": 3, "n_images": 10000}
    rows = [{"student": TEACHER_ROW, "method": "x", "checkpoint": "imported", "mean": 30.0, "sd": None}]
    rows += [
        {"student": student, "method": "rslad", "checkpoint": c, "mean": 26.0, "sd": 0.5} for c in ("best", "last")
    ]
    table = pd.DataFrame([common | row for row in rows]).reindex(columns=tables.COLUMNS)
    by_name = {"main": (table, spec, "")} | tables.named_tables(table, spec)
    for name, view in by_name.items():
        for text in (tables.markdown(*view), tables.latex(*view).replace("\\", "")):
            assert protocol in text, name
            if len(view[0]):
                assert selection in text, name
                assert "last: after the last epoch" in text, name
