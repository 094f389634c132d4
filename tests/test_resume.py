"""A job that was killed ends in the same bytes as one that was left alone, wherever it was killed."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, environment
from test_training import CPU, SCHEME, data, network, trainer_of  # noqa: F401 (a fixture)
from toy_methods import TOYS

from robust_distillation import methods, optimizers
from robust_distillation.cache.fill import fill_cache
from robust_distillation.cache.store import CachedValues, cache_key, description_of
from robust_distillation.files import find_temporary_files, read_json, sha256
from robust_distillation.models.checkpoint import weights_digest
from robust_distillation.resume import STOPPED, ResumableJob, differing_keys, remove_links
from robust_distillation.settings import Training
from robust_distillation.training.loop import train
from robust_distillation.training.state import Progress, packed, restored
from robust_distillation.training.trainer import Trainer

RUN = "wide/small/gacd/seed-0"  # asks the cache for logits and features, and has a state of its own
OPTIONS = ["--experiment", "params.yaml", "--overlay", "tiny.yaml"]
STEP, SAVE = "robust_distillation.training.trainer:Trainer.step", "robust_distillation.resume:ResumableJob.save"


class Killed(BaseException):
    pass


def whole(trainer: Trainer, progress: Progress) -> bytes:
    return packed(trainer, progress, [progress.sums])


@contextmanager
def dying(folder: Path, configuration: dict, every: float = 1) -> Iterator[ResumableJob]:
    """Work that does not come to its end."""
    with suppress(Killed), ResumableJob(folder, configuration, every) as work:
        yield work
        raise Killed


KILLED_AFTER = (1, 7, 10, 13)  # of 15 steps: the first, within an epoch, its last, after it


# In memory, test_every_setting kills every method after each of its steps.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "step"),
    [
        *zip([*methods.names(), *TOYS], cycle(KILLED_AFTER), strict=False),
        *((name, step) for name in ("trades", "gacd", "mtard") for step in KILLED_AFTER),
    ],
)
def test_every_method_goes_on_from_a_saved_file_as_if_nothing_had_happened(name, step, data, tmp_path, monkeypatch):  # noqa: F811
    def trainer() -> Trainer:
        return trainer_of(name, data)

    alone = trainer()
    expected = train(alone, data, data.first(40), SCHEME, CPU)
    with monkeypatch.context() as patched, dying(tmp_path, {}, every=0) as work:
        real, calls = Trainer.step, 0

        def killed(self, batch):
            nonlocal calls
            calls += 1
            if calls > step:
                raise Killed
            return real(self, batch)

        patched.setattr(Trainer, "step", killed)
        train(trainer(), data, data.first(40), SCHEME, CPU, work)
    again = trainer()
    with ResumableJob(tmp_path, {}, every=0) as work:
        found = train(again, data, data.first(40), SCHEME, CPU, work)
        assert work.sessions == 2
    assert whole(again, found) == whole(alone, expected)  # weights, momenta, the method's state, best, all lines
    assert list(tmp_path.rglob("*")) == []


def test_a_state_is_all_that_a_step_depends_on(data):  # noqa: F811
    trainer = trainer_of("gacd", data)
    progress = train(trainer, data, data.first(40), SCHEME, CPU)
    other = trainer_of("gacd", data)
    assert whole(other, restored(other, whole(trainer, progress))) == whole(trainer, progress)
    assert weights_digest(other.own.state_dict()) == weights_digest(trainer.own.state_dict())


OPTIMIZER_OPTIONS = {
    "SGD": {"nesterov": True},
    "RMSprop": {"centered": True, "momentum": 0.5},
    "Adam": {"amsgrad": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", optimizers.names())
def test_every_optimizer_goes_on_after_each_step_with_two_teachers_and_a_peer(name, data, tmp_path, monkeypatch):  # noqa: F811
    """Killed after each step of a training of two epochs of three steps: the same bytes in the end."""
    budget = {
        "epochs": 2,
        "batch_size": 64,
        "milestones": [1],
        "learning_rate": 0.01,
        "optimizer": {"name": name, **OPTIMIZER_OPTIONS.get(name, {})},
        "inner_attack": {"steps": 2, "step_size": 0.05},
        "selection": {"steps": 2},
    }
    settings = Training.model_validate(budget)

    def trained(work: ResumableJob | None = None, steps: int = 6) -> bytes:
        trainer, real, calls = trainer_of("Everything", data, settings=settings), Trainer.step, 0

        def step(self, batch):
            nonlocal calls
            calls += 1
            if calls > steps:
                raise Killed
            return real(self, batch)

        with monkeypatch.context() as patched:
            patched.setattr(Trainer, "step", step)
            return whole(trainer, train(trainer, data, data.first(20), SCHEME, CPU, work))

    expected = trained()
    for steps in range(1, 6):
        folder = tmp_path / str(steps)
        with dying(folder, {}, every=0) as work:
            trained(work, steps)
        with ResumableJob(folder, {}, every=0) as work:
            assert trained(work) == expected, f"killed after step {steps}"
            assert work.sessions == 2


@pytest.mark.parametrize("damage", ["truncated", "flipped", "header", "empty"])
def test_a_damaged_state_is_set_aside_and_the_one_before_is_used(damage, tmp_path, caplog):
    with dying(tmp_path, {}, 1) as work:
        work.save(b"first")
        work.save(b"second")
    [state] = tmp_path.rglob("state")
    content = state.read_bytes()
    flipped = bytes([content[-1] ^ 1])
    state.write_bytes({
        "truncated": content[:-1], "flipped": content[:-1] + flipped, "header": b"x" + content, "empty": b"",
    }[damage])  # fmt: skip
    with caplog.at_level(logging.WARNING), dying(tmp_path, {}, 1) as work:
        assert work.load() == b"first"
    assert f"{state}: its " in caplog.text
    assert state.with_name("state.broken").is_file()
    [previous] = tmp_path.rglob("previous")
    previous.write_bytes(b"")
    with dying(tmp_path, {}, 1) as work:
        assert work.load() is None


def test_a_state_of_another_configuration_is_named_left_alone_and_there_for_who_comes_back(tmp_path, caplog):
    first = {"step": "train-student", "settings": {"training": {"epochs": 3}, "seed": 0}, "code": "a"}
    other = {"step": "train-student", "settings": {"training": {"epochs": 4}, "seed": 0}, "code": "b"}
    with dying(tmp_path, first, 1) as work:
        work.save(b"of the first")
    with caplog.at_level(logging.WARNING), ResumableJob(tmp_path, other, 1) as work:
        assert work.load() is None
    assert "is of another configuration (code, settings.training.epochs), left there" in caplog.text
    with dying(tmp_path, first, 1) as work:
        assert work.load() == b"of the first"
    assert differing_keys({"a": {"b": 1}}, {"a": {"b": 2}, "c": 3}) == ["a.b", "c"]


def test_the_state_before_stays_until_the_new_one_is_whole(tmp_path):
    """Killed at every call that touches the disk: what is loaded next is the old state or the new one."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[4]); from killed import signalled; from pathlib import Path\n"
        "from robust_distillation.resume import ResumableJob\n"
        "work = ResumableJob(Path(sys.argv[1]), {}, 1).__enter__()\n"
        "work.save(b'old') if work.load() is None else None\n"
        "signalled(sys.argv[2], int(sys.argv[3]), 9)\n"
        "work.save(b'new')\n"
    )
    died = 0
    for place, nth in [("os:replace", 1), ("os:replace", 2), ("os:replace", 3), ("os:fsync", 1), ("os:open", 1)]:
        folder = tmp_path / f"{place.partition(':')[2]}-{nth}"
        command = [sys.executable, "-c", code, folder, place, str(nth), REPOSITORY / "tests"]
        died += subprocess.run(command, env=environment(REPOSITORY)).returncode == -signal.SIGKILL
        with dying(folder, {}, 1) as work:
            assert work.load() in (b"old", b"new"), f"killed in call {nth} of {place}"
    assert died >= 4


def test_two_processes_do_not_work_on_the_same(tmp_path, caplog):
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys, time; from pathlib import Path\n"
         "from robust_distillation.resume import ResumableJob\n"
         "with ResumableJob(Path(sys.argv[1]), {}, 1): print('in', flush=True); time.sleep(2)", tmp_path / "x"],
        stdout=subprocess.PIPE, env=environment(REPOSITORY),
    )  # fmt: skip
    assert holder.stdout.readline() == b"in\n"
    with caplog.at_level(logging.WARNING), ResumableJob(tmp_path / "x", {}, 1) as work:
        assert work.waited
        assert holder.wait(timeout=5) == 0
    assert f"process {holder.pid} on " in caplog.text
    assert not (tmp_path / "x").exists()


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), ResumableJob(tmp_path, {}, 300) as work:  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        assert work.should_save()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    assert signal.getsignal(signal.SIGINT) is before


def test_where_the_file_system_has_no_locks_the_work_goes_on(tmp_path, monkeypatch, caplog):
    def none(*_):
        raise OSError("no locks here")

    monkeypatch.setattr(fcntl, "flock", none)
    with caplog.at_level(logging.WARNING), ResumableJob(tmp_path / "x", {}, 1) as work:
        assert not work.waited
    assert "cannot be locked (no locks here)" in caplog.text


# A cache of 160 x 9 rows in batches of 512: three of them.
@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize("damage", [False, True])
def test_a_cache_goes_on_after_the_last_batch_that_is_whole(batches, damage, data, tmp_path):  # noqa: F811
    key = cache_key("teacher", data.digest(), SCHEME, "logits")
    alone, path = tmp_path / "alone/logits.npy", tmp_path / "logits.npy"
    fill_cache(alone, key, network(8, 2), data, SCHEME, "logits")
    calls = []

    class Slow(torch.nn.Module):
        def __init__(self, limit: int):
            super().__init__()
            self.network, self.limit = network(8, 2), limit
            self.classifier = self.network.classifier

        def features(self, x):
            calls.append(len(x))
            if len(calls) > self.limit:
                raise Killed
            return self.network.features(x)

        def forward(self, x):
            return self.classifier(self.features(x))

    with dying(tmp_path / "state", key, 0) as work:
        fill_cache(path, key, Slow(batches), data, SCHEME, "logits", work=work)
    assert not path.exists()
    if damage:
        filling = np.load(tmp_path / ".logits.npy.filling", mmap_mode="r+")
        filling[3] += 1  # of the first batch
        filling.flush()
    calls.clear()
    with ResumableJob(tmp_path / "state", key, 0) as work:
        fill_cache(path, key, Slow(99), data, SCHEME, "logits", work=work)
    assert len(calls) == (3 if damage else 3 - batches)
    assert path.read_bytes() == alone.read_bytes()
    assert read_json(description_of(path)) == read_json(description_of(alone))
    assert {file.name for file in tmp_path.iterdir()} == {"alone", "logits.json", "logits.npy"}
    CachedValues(path, key)


def command(tree: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "robust_distillation.cli", *arguments, *OPTIONS],
        cwd=tree, env=environment(tree), capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def killed(tree: Path, place: str, nth: int, number: int, *arguments: str) -> int:
    """The exit code of a command that gets a signal at the n-th call of a function."""
    return subprocess.run(
        [sys.executable, REPOSITORY / "tests/killed.py", place, str(nth), str(number), *arguments, *OPTIONS],
        cwd=tree, env=environment(tree), timeout=300, capture_output=True,
    ).returncode  # fmt: skip


def hashes(tree: Path, files: list[str]) -> dict[str, str]:
    return {name: sha256(tree / "results/tiny" / name) for name in files}


def eager(tree: Path) -> None:
    """Lets every job save whenever it can."""
    (tree / "tiny.yaml").write_text((tree / "tiny.yaml").read_text() + "compute: {save_every: 0.001}\n")


@pytest.mark.parametrize(
    ("place", "nth", "number"),
    [
        (STEP, 5, signal.SIGKILL),  # 3 epochs of 3 steps
        (SAVE, 6, signal.SIGKILL),
        ("os:replace", 8, signal.SIGKILL),  # while a state is written
        ("robust_distillation.training.run:save_checkpoint", 2, signal.SIGKILL),  # best is there, last is not
        ("safetensors.torch:save", 3, signal.SIGKILL),
        (STEP, 5, signal.SIGTERM),
        (STEP, 7, signal.SIGINT),
        ("robust_distillation.attacks.apgd:_correct_under_apgd", 2, signal.SIGTERM),  # during validation
    ],
)
def test_a_killed_training_ends_in_the_same_bytes(place, nth, number, tree):
    files = [f"students/{RUN}/{name}" for name in ("best.safetensors", "last.safetensors", "metrics.jsonl")]
    expected = hashes(tree, files)
    eager(tree)
    for file in [*files, f"students/{RUN}/record.json"]:
        (tree / "results/tiny" / file).unlink()
    code = killed(tree, place, nth, number, "train-student", RUN)
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else STOPPED)
    again = command(tree, "train-student", RUN)
    assert again.returncode == 0, again.stderr
    assert "going on from results/tiny/.state/students/wide/small/gacd/seed-0/" in again.stderr
    assert hashes(tree, files) == expected
    record = read_json(tree / f"results/tiny/students/{RUN}/record.json")
    assert record["time"]["sessions"] == 2
    assert record["energy"] is None
    assert not list((tree / "results/tiny/.state").rglob("state"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_attacks_go_on_after_the_last_that_ended(number, tree):
    """24 images in blocks of 10, two attacks each, and weights that are equal twice or not."""
    outcomes = f"outcomes/students/{RUN}.parquet"
    expected = hashes(tree, [outcomes])
    eager(tree)
    (tree / "results/tiny" / outcomes).unlink()
    code = killed(tree, "robust_distillation.attacks.pgd20:attack", 2, number, "attack", RUN)
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else STOPPED)
    [state] = (tree / "results/tiny/.state").rglob("state")
    done = json.loads(state.read_bytes().partition(b"\n")[2])
    assert [sorted(block) for block in done.values()] == [["fgsm", "pgd20"], ["fgsm"]]
    again = command(tree, "attack", RUN)
    assert again.returncode == 0, again.stderr
    assert hashes(tree, [outcomes]) == expected


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_cache_filling_goes_on(number, tree):
    files = ["cache/wide/features.npy", "cache/wide/features.json"]
    expected = hashes(tree, files)
    eager(tree)
    for file in files:
        (tree / "results/tiny" / file).unlink()
    code = killed(tree, "robust_distillation.cache.store:Writer.add", 2, number, "fill-cache", "wide", "features")
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else STOPPED)
    again = command(tree, "fill-cache", "wide", "features")
    assert again.returncode == 0, again.stderr
    assert "going on from" in again.stderr
    assert hashes(tree, files) == expected
    assert not list((tree / "results/tiny/cache").rglob(".*"))


def test_a_job_that_ended_after_its_snakemake_was_killed_is_not_done_twice(tree):
    """Another process is at work on the same: waited for. It has done it and Snakemake removes the files of what it did
    not see end: they come back. Once Snakemake knows, nothing is left of that."""
    folder = tree / f"results/tiny/students/{RUN}"
    expected = hashes(tree, [f"students/{RUN}/last.safetensors"])
    record = (folder / "record.json").read_bytes()
    (folder / "best.safetensors").unlink()
    first = killed(tree, "robust_distillation.cli:main", 99, signal.SIGKILL, "train-student", RUN)
    assert first == 0
    made = (folder / "record.json").read_bytes()
    assert made != record  # another time
    for file in folder.iterdir():
        file.unlink()
    lock = tree / f"results/tiny/.state/students/{RUN}/lock"
    with lock.open("w") as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)
        waiting = subprocess.Popen(
            [sys.executable, "-m", "robust_distillation.cli", "train-student", RUN, *OPTIONS],
            cwd=tree, env=environment(tree), stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        for line in waiting.stderr:
            if "waiting until it ends" in line:
                break
        time.sleep(0.2)
        assert waiting.poll() is None
    assert "made already" in waiting.communicate(timeout=60)[1]
    assert waiting.returncode == 0
    assert (folder / "record.json").read_bytes() == made
    assert hashes(tree, list(expected)) == expected
    remove_links(tree / "results/tiny/.state")
    assert not (tree / "results/tiny/.state").exists()


def test_what_was_being_written_is_left_where_a_start_finds_it(tmp_path):
    code = (
        "import os, sys; from robust_distillation.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as file: file.write_text('half'); os.kill(os.getpid(), 9)"
    )
    target = tmp_path / "deep/table.csv"
    subprocess.run([sys.executable, "-c", code, target], env=environment(REPOSITORY))
    assert not target.exists()
    [left] = find_temporary_files(tmp_path)
    assert left.read_text() == "half"
    assert os.listdir(target.parent) == [left.name]
