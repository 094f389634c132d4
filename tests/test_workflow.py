"""Real runs of Snakemake on a tiny experiment. test_reruns.py has what an edit runs again; Snakemake must agree."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import REPOSITORY, environment, fashion_mnist_files, fresh_tree, planned, snakemake
from generated import cifar10_files, published_weights
from ruamel.yaml import YAML
from test_reruns import ALL, EDITS

pytestmark = pytest.mark.slow  # real runs


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_finished_run_has_nothing_to_do(finished):
    assert planned(finished) == set()


def test_new_file_times_and_comments_run_nothing(tree):
    for file in [tree / "Snakefile", *(tree / "workflow").rglob("*.smk"), tree / "params.yaml", tree / "tiny.yaml"]:
        file.write_text(file.read_text() + "\n# A new comment.\n")
    for file in tree.rglob("*"):
        if file.is_file() and ".snakemake" not in file.parts:
            file.touch()
    assert planned(tree) == set()


@pytest.mark.parametrize("edit", ["method", "seed"])
def test_snakemake_runs_what_the_steps_say(edit, tree):
    edits, expected = EDITS[edit]
    for name, old, new in edits:
        replace(tree / name, old, new)
    assert planned(tree) == expected


def test_dry_run_from_nothing_lists_the_whole_matrix(tmp_path):
    tree = fresh_tree(tmp_path / "tree")
    assert planned(tree) == ALL
    assert not (tree / "results").exists()


def test_same_bytes_again_on_one_core(finished, tmp_path):
    again = fresh_tree(tmp_path / "again")
    result = snakemake(again, "--cores", "1", "results/tiny/tables/main.csv")
    assert result.returncode == 0, result.stdout + result.stderr
    compared = 0
    for file in (again / "results").rglob("*"):
        kinds = {".safetensors", ".npy", ".parquet", ".csv", ".md", ".tex", ".jsonl"}
        if file.suffix in kinds or file.name in ("choice.json", "candidates.json"):
            assert file.read_bytes() == (finished / file.relative_to(again)).read_bytes(), file
            compared += 1
    assert compared == 2 * 4 + 4 + 2 + 4 + 3 + 3 * 4  # checkpoints, curves, caches, outcomes, tables, tuning


def test_another_experiment_runs_by_the_same_command(tmp_path):
    """experiments/fashion_mnist.yaml on files in torchvision's format, made small."""
    tree = fresh_tree(tmp_path / "tree")
    fashion_mnist_files(tree / "images")
    (tree / "small.yaml").write_text("""
name: fashion-small
dataset: {folder: images, limit: {train: 64, validation: 32}}
seeds: [0]
training: {epochs: 1, milestones: [], inner_attack: {steps: 1}}
tuning: ~
teachers: ~
students: {small: {width: 2}}
methods: {natural: ~, trades: ~, ard: ~, rslad: ~, gacd: ~}
evaluation: {images: 16, attacks: [fgsm], checkpoints: [last]}
robustness: ~
claims: ~
""")
    command = [sys.executable, "-m", "robust_distillation.cli", "reproduce"]
    command += ["--experiment", "experiments/fashion_mnist.yaml", "--overlay", "small.yaml"]
    options = {"cwd": tree, "env": environment(tree), "capture_output": True, "text": True}
    result = subprocess.run(command, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "fashion-small: accuracy in percent on 16 test images" in result.stdout
    assert "about" in result.stderr  # how long still
    assert (tree / "results/fashion-small/snakemake-report.html").stat().st_size > 100_000
    started = time.perf_counter()
    again = subprocess.run(command, **options)
    print(f"second time: {time.perf_counter() - started:.1f} s")
    assert again.returncode == 0
    assert "Nothing to be done" in again.stderr
    teachers, _, table = again.stdout.partition("\n")
    assert teachers == "fashion-small: teachers: none"
    assert result.stdout.startswith(f"{teachers}\n")
    assert result.stdout.endswith(table)


def test_bad_params_stop_before_any_job(tree):
    replace(tree / "tiny.yaml", "name: tiny", "name: other\nsedes: [1]")
    result = snakemake(tree, "--cores", "1")
    assert result.returncode == 1
    assert "unknown key 'sedes'. Did you mean 'seeds'?" in result.stdout + result.stderr
    assert not (tree / "results/other").exists()


@pytest.mark.tiny
def test_odd_shapes_of_an_experiment_run_to_their_end(tmp_path):
    """Two teachers (one taught from `last`, which is not evaluated for students), two students, a method under another
    name, one with both teachers, an exclusion that leaves a pair empty, one checkpoint, L2, three jobs per attack."""
    tree = fresh_tree(tmp_path / "tree")
    (tree / "odd.yaml").write_text("""
name: odd
dataset: {limit: {train: 48, validation: 16}}
threat_model: {norm: l2, eps: 0.5}
seeds: [3]
training: {epochs: 1, milestones: [], inner_attack: {steps: 1}}
tuning: ~
teachers:
  wide: {width: 4, checkpoint: last, training: {epochs: 1, milestones: []}}
  other.x: {architecture: wide_resnet, depth: 10, width: 1, trained_by: {method: sat}, training: {milestones: []}}
  both: {roles: {robust: wide, natural: other.x}}
students: {small: {width: 2}, s2: {architecture: convnet, width: 2, stages: 1}}
methods:
  {natural: ~, sat: ~, trades: ~, mart: ~, ard: ~, iad: ~, gacd: ~, rslad: ~, teacher: {method: iad},
   two: {method: mtard}}
exclude: [{teacher: [other.x, both], student: s2}]
evaluation: {images: 10, attacks: [fgsm], checkpoints: [best], block_size: 4, jobs: 3}
structure: {images: 10}
robustness: ~
transfer: ~
claims: ~
""")
    result = snakemake(tree, "--cores", "2", overlay="odd.yaml")
    assert result.returncode == 0, result.stdout + result.stderr
    results = tree / "results/odd"
    pairs = {(path.parent.name, path.name) for path in results.glob("figures/*/*")}
    assert pairs == {("wide", "small"), ("wide", "s2"), ("other.x", "small"), ("both", "small")}
    assert (results / "tables/structure.csv").is_file()
    text = (results / "tables/main.md").read_text()
    assert text.count("| teacher (trades, last)") == 2
    assert text.count("| teacher (sat, best)") == 1
    assert text.count("\n| teacher  ") == 3
    assert json.loads((results / "metrics/teachers/wide.json").read_text()).keys() == {"clean", "fgsm"}
    record = json.loads((results / "students/wide/small/teacher/seed-3/record.json").read_text())
    assert record["teacher_served_from"] == {
        "logits on clean views": "cache",
        "logits on adversarial images": "live teacher",
    }
    assert "results/odd/teachers/wide/last.safetensors" in record["inputs"]
    record = json.loads((results / "students/both/small/two/seed-3/record.json").read_text())
    assert record["teacher_served_from"] == {
        "robust: logits on adversarial images": "live teacher",
        "natural: logits on clean views": "cache",
    }
    taught_by = {"teachers/wide/last.safetensors", "teachers/other.x/best.safetensors", "cache/other.x/logits.npy"}
    assert {f"results/odd/{file}" for file in taught_by} < set(record["inputs"])


def test_killed_run_says_how_to_go_on(tree):
    """kill -9 of the command and of Snakemake leaves Snakemake's lock; the next start tells how to lift it."""
    (tree / "results/tiny/students/none/small/natural/seed-0/best.safetensors").unlink()
    command = [sys.executable, "-m", "robust_distillation.cli", "reproduce", "--overlay", "tiny.yaml"]
    options = {"cwd": tree, "env": environment(tree), "text": True}
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, **options) as process:
        for line in process.stderr:
            if "train_student" in line and line.startswith("["):
                os.killpg(process.pid, signal.SIGKILL)
                break
    again = subprocess.run(command, capture_output=True, **options)
    assert again.returncode == 2
    assert "unlock it and start again" in again.stderr
    unlock = again.stderr.strip().splitlines()[-1].split()
    assert unlock[0] == ".venv/bin/snakemake"
    subprocess.run([sys.executable, "-m", *[unlock[0].rpartition("/")[2], *unlock[1:]]], check=True, **options)
    last = subprocess.run(command, capture_output=True, **options)
    assert last.returncode == 0, last.stdout + last.stderr
    assert planned(tree) == set()


@pytest.mark.tiny
def test_official_protocol_with_imported_and_surrogate_teachers_runs_to_its_tables(tmp_path):
    """experiments/rslad_cifar10.yaml with few of its teachers and methods, on generated files. The real third-party
    file that comes with pyautoattack is imported, attacked, taught from, compared, and the surrogate."""
    tree = fresh_tree(tmp_path / "tree")
    cifar10_files(tree / "generated")
    published_weights(tree / "generated")
    path = tree / "experiments/rslad_cifar10.yaml"
    yaml = YAML(typ="safe")
    experiment, tiny = yaml.load(path), yaml.load(REPOSITORY / "tests/tiny/rslad_cifar10.yaml")
    methods, tables = ("natural", "trades", "iad", "rslad", "rslad-inner-own"), ("white-box", "black-box", "loss-terms")
    tiny["teachers"] = dict.fromkeys(experiment["teachers"]) | {
        "wrn-34-10": tiny["teachers"]["wrn-34-10"],
        "accurate": {"imported": {"source": "pyautoattack_resnet18"}},
    }
    tiny["students"] = {"resnet18": {"width": 4}, "mobilenet_v2": None}
    tiny["methods"] = {name: None for name in experiment["methods"] if name not in methods}
    tiny["exclude"] = [{"teacher": "accurate", "method": ["iad", "rslad-inner-own"]}]
    tiny["dataset"]["padding"] = 0
    tiny["evaluation"] |= {"surrogate": "accurate", "attacks": ["fgsm", "pgd_sat", "transfer_pgd20"]}
    tiny["structure"] = {"images": 4}
    kept = {"pgd-sat-best-trades", "pgd-sat-best-iad"}
    tiny["claims"] = dict.fromkeys(set(experiment["claims"]) - kept)
    tiny["tables"] = {
        name: {"methods": ["trades", "iad", "rslad", "rslad-inner-own"], "metrics": None} if name in tables else None
        for name in experiment["tables"]
    }
    with open(tree / "official.yaml", "w") as stream:
        yaml.dump(tiny, stream)
    command = [sys.executable, "-m", "snakemake", "--cores", "2"]
    command += ["--config", "experiment=experiments/rslad_cifar10.yaml", "overlay=official.yaml"]
    result = subprocess.run(command, cwd=tree, env=environment(tree), capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    results = tree / "results/tiny"
    main = pd.read_csv(results / "tables/main.csv")
    assert set(main["protocol"]) == {"official"}
    rslad = main[main["method"].eq("rslad") & main["teacher"].eq("wrn-34-10") & main["checkpoint"].eq("best")]
    assert rslad.set_index("metric")["published"][["clean", "fgsm", "pgd_sat"]].tolist() == [83.38, 60.01, 54.24]
    assert rslad["difference"].dropna().tolist() == pytest.approx(
        (rslad["mean"] - rslad["published"]).dropna().tolist()
    )
    claims = pd.read_csv(results / "tables/claims.csv").set_index("claim")
    assert claims["published"].to_dict() == {"pgd-sat-best-trades": 1.58, "pgd-sat-best-iad": 2.03}
    assert set(claims["mark"]) == {"P"}
    assert claims["source"].str.startswith("RSLAD (Zi 2021), Table 3: https://").all()
    own = main[main["student"].eq("-") & main["teacher"].eq("accurate")]
    assert set(own["method"]) == {"pyautoattack_resnet18"}
    text = (results / "tables/white-box.md").read_text()
    assert "test set" in text or "test split" in text
    assert "54.24 P" in text
    record = json.loads((results / "teachers/accurate/record.json").read_text())
    assert record["published"]["sha256"].startswith("399f52da")
