"""Versioned results: run, push, a clone that has nothing to do, a change that comes back, two experiments, exp run."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest
from conftest import REPOSITORY
from ruamel.yaml import YAML
from versioned import attempt, checkout, cloned, commit, plan, run

from robust_distillation import config
from robust_distillation.files import read_json
from robust_distillation.layout import Layout
from robust_distillation.pipeline import metadata
from robust_distillation.pipeline.versioning import stage

NOT_VERSIONED = ("cache", "logs")


@pytest.fixture(scope="module")
def origin(finished, tmp_path_factory) -> Path:
    """The story's first page: run, commit, push."""
    folder = tmp_path_factory.mktemp("versioned")
    tree = checkout(finished, folder / "origin")
    run(tree, "dvc", "config", "cache.type", "hardlink")  # the harder case: a file in place is the file in the cache
    run(tree, "dvc", "remote", "add", "--default", "store", str(folder / "store"))
    assert "Nothing to be done" in run(tree, "dvc", "repro", "tiny")
    commit(tree, "The first run")
    run(tree, "dvc", "push")
    return tree


def lock_of(tree: Path) -> dict:
    return YAML(typ="safe").load((tree / "dvc.lock").read_text())["stages"]


def assert_store_is_whole(tree: Path) -> None:
    """Every file of DVC's cache still has the content that its name says."""
    files = [file for file in (tree / ".dvc/cache/files/md5").rglob("*") if file.is_file()]
    assert files
    for file in files:
        found = hashlib.md5(file.read_bytes()).hexdigest()
        assert file.parent.name + file.name.removesuffix(".dir") == found


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, (path, old)
    path.write_text(text.replace(old, new))


def test_every_file_is_versioned_but_cache_and_logs(origin):
    outs = [origin / out["path"] for out in lock_of(origin)["tiny"]["outs"]]
    for file in (origin / "results/tiny").rglob("*"):
        if file.is_file():
            inside = any(file == out or out in file.parents for out in outs)
            assert inside != (file.relative_to(origin / "results/tiny").parts[0] in NOT_VERSIONED), file
    assert "didn't change, skipping" in run(origin, "dvc", "repro")
    output = json.loads(run(origin, "dvc", "metrics", "show", "--json"))
    numbers = {path: file["data"] for source in output.values() for path, file in source["data"].items()}
    assert set(numbers) == {str(path.relative_to(origin)) for path in (origin / "results/tiny/metrics").rglob("*.json")}
    gacd = "results/tiny/metrics/students/wide/small/gacd.json"
    assert numbers[gacd] == read_json(origin / gacd)


def test_story_of_a_clone_and_a_change_that_comes_back(origin, tmp_path):
    main = run(origin, "git", "branch", "--show-current").strip()
    run(origin, "git", "checkout", "--quiet", "-b", "elsewhere")  # a branch that is checked out takes no push
    clone = cloned(origin, tmp_path / "a colleague" / "clone")
    run(clone, "git", "checkout", "--quiet", main)
    run(clone, "dvc", "pull")
    assert not (clone / "results/tiny/cache").exists()
    assert plan(clone) == set()
    for pattern in ("*.parquet", "students/**/*.safetensors", "teachers/**/*.safetensors", "data.json"):
        for file in (clone / "results/tiny").rglob(pattern):
            file.touch()
        assert plan(clone) == set()
    assert "up to date" in run(clone, "dvc", "status")

    kept = {file.name: file.read_bytes() for file in (clone / "results/tiny/.metadata").iterdir()}
    old = (clone / "results/tiny/tables/main.csv").read_bytes()
    replace(clone / "params.yaml", "  rslad:", "  trades: {beta: 3.0}\n  rslad:")
    log = run(clone, "dvc", "repro")
    assert sorted(re.findall(r"rule (train_\w+|fill_cache|prepare_data):", log)) == ["train_student"]
    assert "methods.trades.beta" in run(clone, "dvc", "params", "diff")
    assert "trades.json" in run(clone, "dvc", "metrics", "diff")
    again = {file.name: file.read_bytes() for file in (clone / "results/tiny/.metadata").iterdir()}
    assert len(again) > len(kept)
    assert sum(again[name] == text for name, text in kept.items()) > len(kept) / 2  # what did not run keeps its record
    commit(clone, "TRADES joins")
    run(clone, "dvc", "push")
    run(clone, "git", "push", "--quiet", "origin", f"HEAD:{main}")

    run(origin, "git", "checkout", "--quiet", main)
    run(origin, "dvc", "pull")
    assert plan(origin) == set()
    new = (origin / "results/tiny/tables/main.csv").read_bytes()
    assert new == (clone / "results/tiny/tables/main.csv").read_bytes() != old
    run(origin, "git", "checkout", "--quiet", "HEAD~1")  # back to the first run
    run(origin, "dvc", "checkout")
    assert plan(origin) == set()
    assert (origin / "results/tiny/tables/main.csv").read_bytes() == old
    run(origin, "git", "checkout", "--quiet", "elsewhere")
    assert_store_is_whole(origin)


@pytest.mark.tiny
def test_exp_run_runs_only_what_it_touches_and_leaves_the_store_whole(origin, tmp_path):
    tree = Path(shutil.copytree(origin, tmp_path / "tree"))
    log = run(tree, "dvc", "exp", "run", "--name", "half", "--set-param", "methods.rslad.alpha=0.5")
    jobs = re.findall(r"rule (\w+):", log)
    tuning = ["tune", "tune", "choose", "report_tuning"]
    ends = [
        "report_structure",
        "report_transfer",
        "tabulate",
        "draw_figures",
        "compare",
        "track",
        "report_html",
        "index",
    ]
    evaluations = ["attack", "structure", "robustness", "transfer"]
    assert sorted(jobs) == sorted([*tuning, "train_student", *evaluations, *ends, "all"])
    assert set(re.findall(r"trained=(\S+)", log)) == {"students/wide/small/rslad/seed-0"}
    output = run(tree, "dvc", "exp", "show", "--csv")
    header, rows = output.splitlines()[0], output.splitlines()[1:]
    assert "results/tiny/metrics/students/wide/small/rslad.json:pgd20" in header
    assert any("half" in row and "0.5" in row for row in rows)
    assert_store_is_whole(tree)


def test_two_experiments_side_by_side(origin, tmp_path):
    """`other` is the same small thing under another name: its teacher alone and a student without one."""
    tree = Path(shutil.copytree(origin, tmp_path / "tree"))
    (tree / "experiments/other.yaml").write_text("""
name: other
protocol: controlled
dataset: {name: digits, padding: 1, limit: {train: 32, validation: 16}}
threat_model: {norm: linf, eps: 0.15}
seeds: [0]
training: {epochs: 1, batch_size: 16, learning_rate: 0.1, milestones: [], inner_attack: {steps: 1, step_size: 0.05}}
students: {small: {architecture: convnet, width: 2}}
methods: {natural: {}}
evaluation: {images: 10, attacks: [fgsm], checkpoints: [last]}
""")
    before, records = lock_of(tree), {f: f.read_bytes() for f in (tree / "results/tiny/.metadata").iterdir()}
    run(tree, "robust-distillation", "version", "--experiment", "experiments/other.yaml")
    run(tree, "dvc", "repro", "other")
    assert lock_of(tree)["tiny"] == before["tiny"]
    assert {file: file.read_bytes() for file in (tree / "results/tiny/.metadata").iterdir()} == records
    commit(tree, "Another experiment")
    run(tree, "dvc", "push")
    clone = cloned(tree, tmp_path / "clone")
    run(clone, "dvc", "pull", "other")
    assert not (clone / "results/tiny/students").exists()
    nothing = run(clone, "snakemake", "-n", "--config", "experiment=experiments/other.yaml")
    assert "Nothing to be done" in nothing


# The records beside the results.


@pytest.fixture
def records(tree, monkeypatch) -> Layout:
    monkeypatch.chdir(tree)
    return Layout("tiny")


def test_records_of_files_that_are_gone_or_half_done_are_not_kept(records):
    metadata.keep(records)
    kept = {file.name for file in records.metadata.iterdir()}
    gone = metadata.RECORDS / next(name for name, output in metadata._of(records) if output == records.tracked)
    half = metadata.RECORDS / next(name for name, output in metadata._of(records) if output == records.data)
    records.tracked.unlink()
    (metadata.SNAKEMAKE / "incomplete" / half.name).write_text("{}")
    metadata.keep(records)
    assert kept - {file.name for file in records.metadata.iterdir()} == {gone.name, half.name}
    assert not list(records.root.glob(".metadata.*"))


def test_records_follow_the_folder_while_it_is_there(records):
    metadata.keep(records)
    first, *rest = sorted(records.metadata.iterdir())
    first.write_text('{"rule": "another"}')
    (metadata.RECORDS / rest[0].name).unlink()
    rest[1].unlink()
    metadata.follow(records)
    assert (metadata.RECORDS / first.name).read_text() == '{"rule": "another"}'
    assert (metadata.RECORDS / rest[0].name).read_bytes() == rest[0].read_bytes()
    assert not (metadata.RECORDS / rest[1].name).exists()


def test_records_of_the_cache_are_kept_without_it(records):
    shutil.rmtree(records.caches)
    metadata.keep(records)
    cache = urlsafe_b64encode(str(records.cache("wide", "logits")).encode()).decode()
    assert (records.metadata / cache).is_file()


def test_what_was_killed_leaves_nothing_to_version_until_the_next_start(records):
    metadata.keep(records)
    metadata.forget(records)
    lock = metadata.SNAKEMAKE / "locks/0.output.lock"
    lock.parent.mkdir(exist_ok=True)
    lock.write_text("results/tiny/data.json")
    metadata.follow(records)
    assert not records.metadata.exists()
    lock.unlink()
    metadata.follow(records)
    assert any(records.metadata.iterdir())


def test_long_names_are_kept_and_come_back(records):
    output = records.root / "students" / ("t" * 64) / ("s" * 64) / ("m" * 64) / "seed-0/best.safetensors"
    output.parent.mkdir(parents=True)
    output.touch()
    name = urlsafe_b64encode(str(output).encode()).decode()
    record = metadata.RECORDS / f"@{name[:254]}" / name[254:]
    record.parent.mkdir()
    record.write_text("{}")
    metadata.keep(records)
    shutil.rmtree(metadata.RECORDS)
    metadata.follow(records)
    assert record.read_text() == "{}"


def test_a_run_that_fails_keeps_what_was_done(tree):
    (tree / "workflow/rules/failing.smk").write_text(
        'rule failing:\n    output: "results/tiny/never.txt"\n    shell: "rm -f results/tiny/mlflow.json; false"\n'
    )
    with open(tree / "Snakefile", "a") as stream:
        stream.write('\ninclude: "workflow/rules/failing.smk"\n')
    result = attempt(
        tree, "snakemake", "results/tiny/never.txt", "--config", "experiment=params.yaml", "overlay=tiny.yaml"
    )
    assert result.returncode == 1
    assert len(list((tree / "results/tiny/.metadata").iterdir())) > 20


# The stage in dvc.yaml.


@pytest.mark.slow
def test_the_committed_stage_is_what_the_command_writes(tmp_path):
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    committed = (tmp_path / "dvc.yaml").read_text()
    run(tmp_path, "robust-distillation", "version", PYTHONPATH=str(REPOSITORY / "src"))
    assert (tmp_path / "dvc.yaml").read_text() == committed
    head = committed[: committed.index("  digits:")]
    (tmp_path / "dvc.yaml").write_text(head)
    run(tmp_path, "robust-distillation", "version", PYTHONPATH=str(REPOSITORY / "src"))
    assert (tmp_path / "dvc.yaml").read_text() == committed


def test_a_stage_joins_the_others_and_is_refused_where_it_would_replace_one(tmp_path):
    source = {"PYTHONPATH": str(REPOSITORY / "src")}
    shutil.copy(REPOSITORY / "params.yaml", tmp_path / "params.yaml")
    (tmp_path / "other.yaml").write_text("name: digits.v2\nstructure: ~\nclaims: {gacd-structure: ~}\n")
    (tmp_path / "dvc.yaml").write_text("# mine\nstages:\n  hand:  # written by hand\n    cmd: echo\n")
    version = ("robust-distillation", "version", "--experiment", "params.yaml")
    run(tmp_path, *version, "--overlay", "other.yaml", **source)
    text = (tmp_path / "dvc.yaml").read_text()
    assert text.startswith("# mine\nstages:\n  hand:  # written by hand\n    cmd: echo\n")
    added = YAML(typ="safe").load(text)["stages"]["digits_v2"]
    assert added["cmd"].endswith("--config experiment=params.yaml overlay=other.yaml")
    assert added["params"] == [{"params.yaml": None}, {"other.yaml": None}]
    assert "results/digits.v2/transfer" in str(added["outs"])
    assert "results/digits.v2/structure" not in str(added["outs"])

    (tmp_path / "clash.yaml").write_text("name: digits.v2\n")
    for arguments, message in (
        (["--overlay", "clash.yaml"], "stage digits_v2 is another experiment's"),
        (["--overlay", str(REPOSITORY / "tests/tiny/fashion_mnist.yaml")], "lies outside"),
    ):
        refused = attempt(tmp_path, *version, *arguments, **source)
        assert refused.returncode == 2
        assert message in refused.stderr
        assert (tmp_path / "dvc.yaml").read_text() == text
    (tmp_path / "dvc.yaml").write_text("stages: [1]\n")
    assert attempt(tmp_path, *version, **source).returncode == 2


@pytest.mark.parametrize("path", sorted((REPOSITORY / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
@pytest.mark.slow
def test_every_experiment_has_a_stage(path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    file = str(path.relative_to(REPOSITORY))
    written = stage(config.load(file), [file])
    assert all(options["persist"] for entry in written["outs"] + written["metrics"] for options in entry.values())
