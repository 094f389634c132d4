"""The import into MLflow: what is there, that it can be repeated, killed, moved, and that it stays on this machine."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import interrupted
import pytest
from conftest import environment

from robust_distillation import config
from robust_distillation.files import read_json, sha256
from robust_distillation.layout import Layout
from robust_distillation.tracking import store
from robust_distillation.tracking.runs import import_runs

LAYOUT = Layout("tiny")
RSLAD = "wide/small/rslad/seed-0"
NAMES = {
    "summary", "teacher/wide", "none/small", "none/small/natural/seed-0",
    "wide/small", RSLAD, "wide/small/gacd/seed-0",
}  # fmt: skip


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> Path:
    """A database with MLflow's tables, which take seconds to make."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def here(tree, empty, monkeypatch) -> Path:
    """A finished tree to stand in, with an empty default store."""
    shutil.copy(empty, tree / "mlflow.db")
    monkeypatch.chdir(tree)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(store, "DEFAULT_STORE", f"sqlite:///{tree}/mlflow.db")  # MLflow keeps one store for each URI
    return tree


def tiny(overlay: str = "tiny.yaml") -> config.Experiment:
    return config.load("params.yaml", overlay)


def state(client, name: str = "tiny") -> dict[str, dict]:
    """All that MLflow shows of the runs of an experiment, by name; ids are named by what they stand for."""
    runs = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    names = {run.info.run_id: run.data.tags["run"] for run in runs}
    assert len(set(names.values())) == len(runs)
    found = {}
    for run in runs:
        tags = {key: names.get(value, value) for key, value in run.data.tags.items()}
        history = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
        found[tags["run"]] = {
            "tags": tags,
            "params": run.data.params,
            "metrics": {key: [(point.step, point.value) for point in points] for key, points in history.items()},
            "data": sorted((seen.tags[0].value, seen.dataset.digest) for seen in run.inputs.dataset_inputs),
            "times": (run.info.status, run.info.start_time, run.info.end_time),
            "artifacts": files(client, run.info.run_id),
        }
    return found


def files(client, run: str, folder: str | None = None) -> list[str]:
    found = []
    for item in client.list_artifacts(run, folder):
        found += files(client, run, item.path) if item.is_dir else [item.path]
    return sorted(found)


def ids(client, name: str = "tiny") -> dict[str, str]:
    place = client.get_experiment_by_name(name).experiment_id
    return {run.data.tags["run"]: run.info.run_id for run in client.search_runs([place])}


def test_runs_are_nested_and_tell_where_they_come_from(here):
    contents = import_runs(tiny(), LAYOUT)
    assert set(contents) == NAMES
    client = store.client()
    found = state(client)
    parents = {name: run["tags"].get("mlflow.parentRunId") for name, run in found.items()}
    assert parents == {
        "summary": None, "teacher/wide": "summary", "none/small": "summary", "wide/small": "summary",
        "none/small/natural/seed-0": "none/small", RSLAD: "wide/small", "wide/small/gacd/seed-0": "wide/small",
    }  # fmt: skip

    run, folder = found[RSLAD], LAYOUT.student("wide", "small", "rslad", 0)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert run["metrics"]["selection_robust"] == [(line["epoch"], line["selection_robust"]) for line in lines]
    assert run["params"]["method.alpha"] == str(5 / 6)
    assert {f"test_{checkpoint}_{metric}" for checkpoint in ("best", "last") for metric in ("clean", "fgsm", "pgd20")} \
        < set(run["metrics"])  # fmt: skip

    tags, record = run["tags"], read_json(folder / "record.json")
    for artefact, file in {"best": folder / "best.safetensors", "outcomes": LAYOUT.outcomes(folder)}.items():
        assert tags[f"dvc.{artefact}"] == hashlib.md5(file.read_bytes()).hexdigest()
    assert (tags["code"], tags["record"]) == (record["code"], sha256(folder / "record.json"))
    assert tags["content"] == contents[RSLAD]
    splits = read_json(LAYOUT.data)["splits"]
    assert run["data"] == sorted((split, known["sha256"][:36]) for split, known in splits.items())

    table = Path(tags["table"]).read_text()
    cells = [cell.split("/") for cell in tags["cells"].split()]
    assert len(cells) == 6
    for teacher, student, method, checkpoint, metric in cells:
        assert f"{teacher},{student},{method},controlled,{checkpoint},{metric}," in table
    note = tags["mlflow.note.content"]
    command = "robust-distillation explain wide/small/rslad/last/pgd20 --experiment params.yaml --overlay tiny.yaml"
    assert "`wide/small/rslad/best/pgd20`" in note
    assert command in note
    assert "wide/-/trades/best/clean" in found["teacher/wide"]["tags"]["cells"].split()
    assert {"tables/main.csv", "figures/wide/small/training.png"} < set(found["summary"]["artifacts"])


def test_again_changes_nothing_and_only_what_changed_is_replaced(here):
    first = import_runs(tiny(), LAYOUT)
    client = store.client()
    before, known = state(client), ids(client)
    assert import_runs(tiny(), LAYOUT) == first
    assert (state(client), ids(client)) == (before, known)

    record = LAYOUT.student("wide", "small", "rslad", 0) / "record.json"
    record.write_text(record.read_text().replace('"seconds"', '"second"'))
    (LAYOUT.tables / "main.md").write_text("another table")
    second = import_runs(tiny(), LAYOUT)
    assert {name for name in first if first[name] != second[name]} == {"summary", RSLAD}
    new = ids(client)
    assert {name for name in known if known[name] != new[name]} == {"summary", RSLAD}
    parents = {name: run["tags"].get("mlflow.parentRunId") for name, run in state(client).items()}
    assert parents == {name: run["tags"].get("mlflow.parentRunId") for name, run in before.items()}

    overlay = Path("tiny.yaml").read_text().partition("claims:")[0] + "claims: ~\n"
    Path("tiny.yaml").write_text(overlay.replace("methods: {", "methods: {natural: ~, "))
    assert set(import_runs(tiny(), LAYOUT)) == NAMES - {"none/small", "none/small/natural/seed-0"} == set(ids(client))


def test_experiments_do_not_disturb_each_other(here):
    import_runs(tiny(), LAYOUT)
    client = store.client()
    before, known = state(client), ids(client)
    shutil.copytree("results/tiny", "results/other")
    Path("other.yaml").write_text(Path("tiny.yaml").read_text().replace("name: tiny", "name: other"))
    import_runs(tiny("other.yaml"), Layout("other"))
    assert (state(client), ids(client)) == (before, known)
    assert set(ids(client, "other")) == NAMES
    import_runs(tiny(), LAYOUT)
    assert set(ids(client, "other")) == NAMES


def test_what_is_versioned_is_the_same_in_every_store(here, monkeypatch, tmp_path, empty):
    first = import_runs(tiny(), LAYOUT)
    shutil.copy(empty, tmp_path / "elsewhere.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/elsewhere.db")
    assert import_runs(tiny(), LAYOUT) == first == read_json(LAYOUT.tracked)


def test_the_run_of_a_name_is_found_and_no_store_is_no_error(here, monkeypatch):
    import_runs(tiny(), LAYOUT)
    assert store.run_id("tiny", RSLAD) == ids(store.client())[RSLAD]
    assert store.run_id("tiny", "wide/small/rslad/seed-9") is None
    assert store.run_id("unknown", RSLAD) is None
    Path("broken.db").write_text("no database")
    for uri in (
        "sqlite:///absent.db",
        "http://127.0.0.1:1",
        "postgresql://127.0.0.1:1/mlflow",
        "sqlite:///broken.db",
        "mssql://127.0.0.1/db",
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert store.run_id("tiny", RSLAD) is None, uri
    assert not Path("absent.db").exists()


def test_a_moved_checkout_has_its_artifacts_again(here, tmp_path, monkeypatch):
    import_runs(tiny(), LAYOUT)
    moved = here.rename(tmp_path / "moved")
    monkeypatch.chdir(moved)
    monkeypatch.setattr(store, "DEFAULT_STORE", f"sqlite:///{moved}/mlflow.db")
    import_runs(tiny(), LAYOUT)
    client = store.client()
    path = client.download_artifacts(ids(client)["summary"], "tables/main.csv", str(tmp_path))
    assert Path(path).read_bytes() == (LAYOUT.tables / "main.csv").read_bytes()
    client.delete_experiment(client.get_experiment_by_name("tiny").experiment_id)
    import_runs(tiny(), LAYOUT)
    assert set(ids(client)) == NAMES


def test_a_killed_import_is_completed_by_the_next(finished, empty, tmp_path, monkeypatch):
    """kill -9 before the first, the last, and transactions between."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(interrupted.PRELOAD)

    def imported(name: str, killed_before: int | None = None) -> tuple[int, int]:
        """Exit code and number of transactions."""
        count = context.Value("i", 0)
        uri = f"sqlite:///{tmp_path}/{name}/mlflow.db"
        process = context.Process(target=interrupted.import_tree, args=(finished, uri, killed_before, count))
        process.start()
        process.join()
        return process.exitcode, count.value

    def run_state(name: str) -> dict:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/{name}/mlflow.db")
        return state(store.client())

    def fresh(name: str) -> None:
        (tmp_path / name).mkdir()
        shutil.copy(empty, tmp_path / name)

    fresh("undisturbed")
    code, total = imported("undisturbed")
    assert code == 0
    for moment in sorted({1, total // 5, total // 2, 4 * total // 5, total}):
        fresh(str(moment))
        assert imported(str(moment), killed_before=moment)[0] == -signal.SIGKILL
        assert imported(str(moment))[0] == 0
        assert run_state(str(moment)) == run_state("undisturbed"), moment


WATCH = """
import os, sys

def watch(event, arguments):
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    if host not in (None, "", "localhost", "127.0.0.1", "::1"):
        with open(os.environ["SEEN"], "a") as file:
            file.write(f"{event} {host}\\n")
        raise OSError(f"not allowed: {host}")

sys.addaudithook(watch)
"""


def test_no_connection_leaves_this_machine(here, tmp_path):
    """Every Python process that the import starts would write down, and fail at, a name or an address of another."""
    seen, hook = tmp_path / "seen", tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(WATCH)
    variables = environment(here)
    for name in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "CI"):
        variables.pop(name, None)
    variables |= {"PYTHONPATH": f"{hook}:{variables['PYTHONPATH']}", "SEEN": str(seen)}

    def run(*command: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, *command], env=variables, capture_output=True, text=True)

    assert run("-c", "import urllib.request; urllib.request.urlopen('http://example.org')").returncode == 1
    assert seen.read_text() == "socket.getaddrinfo example.org\n"
    seen.unlink()
    result = run("-m", "robust_distillation.cli", "track", "--overlay", "tiny.yaml")
    assert result.returncode == 0, result.stderr
    assert not seen.exists(), seen.read_text()


def test_bad_stores_and_missing_files_get_one_message(here):
    def track(**more: str) -> str:
        command = [sys.executable, "-m", "robust_distillation.cli", "track", "--overlay", "tiny.yaml"]
        result = subprocess.run(command, env=environment(here) | more, capture_output=True, text=True)
        assert result.returncode == 2
        assert result.stderr.count("\n") == 1
        return result.stderr

    assert "nothing answers" in track(MLFLOW_TRACKING_URI="http://127.0.0.1:1")
    gone = LAYOUT.student("wide", "small", "rslad", 0) / "best.safetensors"
    gone.unlink()
    assert f"{gone}: is not there yet" in track()
