"""Disk, memory and files that fail: one clear message, nothing half done, and the next start goes on."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from conftest import REPOSITORY, environment, planned, snakemake
from faults import jobs
from test_resume import OPTIONS, RUN, command, eager, hashes
from torch import nn

from robust_distillation.cache.store import CachedValues
from robust_distillation.cli import main
from robust_distillation.device import split_on_oom
from robust_distillation.errors import UserError, system_fault
from robust_distillation.evaluation.attack import predict
from robust_distillation.evaluation.outcomes import read_outcomes
from robust_distillation.files import find_temporary_files, read_json, sha256
from robust_distillation.models.checkpoint import read_checkpoint

STUDENT = f"students/{RUN}"
BEST = f"results/tiny/{STUDENT}/best.safetensors"
KEPT = "What was done is kept"


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """A file system of its own at `folder`, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *options, folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a full or lost disk is a real mount, which is not allowed here (root may): {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def small(folder: Path, size: str):
    return mounted(folder, "-t", "tmpfs", "-o", f"size={size}", "tmpfs")


def grow(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", folder], check=True)


def refused(result: subprocess.CompletedProcess, *said: str, code: int = 1) -> None:
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    for text in said:
        assert text in result.stderr


@pytest.mark.parametrize(
    ("full", "size", "names", "arguments"),
    [
        (STUDENT, "8k", ["best.safetensors", "last.safetensors", "metrics.jsonl"], ["train-student", RUN]),
        (".state", "8k", [], ["train-student", RUN]),
        ("cache/wide", "16k", ["logits.npy", "logits.json"], ["fill-cache", "wide", "logits"]),
        ("outcomes/students/wide/small/gacd", "4k", ["seed-0.parquet"], ["attack", RUN]),
        ("tables", "8k", ["main.csv", "main.md", "main.tex"], ["tabulate"]),
        ("figures", "64k", [], ["draw-figures"]),
    ],
)
def test_full_disk(full, size, names, arguments, tree):
    files = [f"{full}/{name}" for name in names]
    expected = hashes(tree, files)
    eager(tree)
    folder = tree / "results/tiny" / full
    with small(folder, size):
        refused(command(tree, *arguments), "the disk is full. Make room and start again", KEPT)
        assert not list(find_temporary_files(folder))
        grow(folder)
        again = command(tree, *arguments)
        assert again.returncode == 0, again.stderr
        assert hashes(tree, files) == expected


def test_read_only_results(tree):
    results = tree / "results"
    with mounted(results, "--bind", str(results)):
        subprocess.run(["mount", "-o", "remount,ro,bind", results], check=True)
        for arguments in (["train-student", RUN], ["tabulate"], ["attack", RUN], ["report"]):
            refused(command(tree, *arguments), "is read-only", KEPT)
    assert planned(tree) == set()


def test_cache_on_a_mount_that_vanished(tree, tmp_path):
    """The folder leads to a disk that is not there: reported. Nothing of it is needed once all students are done."""
    cache = tree / "results/tiny/cache"
    elsewhere = shutil.move(cache, tmp_path / "disk")
    cache.symlink_to(elsewhere)
    assert planned(tree) == set()
    Path(elsewhere).rename(tmp_path / "gone")
    (tree / "results/tiny" / STUDENT / "best.safetensors").unlink()
    result = command(tree, "train-student", RUN)
    refused(result, "results/tiny/cache/wide/logits.npy", "cannot be read", "cache leads to", code=2)
    result = command(tree, "fill-cache", "wide", "logits")
    refused(result, "cache leads to", code=2)
    (tmp_path / "gone").rename(elsewhere)
    assert command(tree, "train-student", RUN).returncode == 0
    assert planned(tree) == {"track", "report_html", "index"}  # the record is a new one, the weights are the old ones


def flip(file: Path, place: float) -> None:
    content = bytearray(file.read_bytes())
    content[int(place * (len(content) - 1))] ^= 16
    file.write_bytes(content)


READERS = {
    f"{STUDENT}/best.safetensors": ["attack", RUN],
    "teachers/wide/best.safetensors": ["fill-cache", "wide", "logits"],
    "cache/wide/features.npy": ["train-student", RUN],
    "cache/wide/features.json": ["train-student", RUN],
    f"outcomes/{STUDENT}.parquet": ["tabulate"],
    "tuning/wide/small/gacd/choice.json": ["train-student", RUN],
    "data.json": ["train-student", RUN],
    f"{STUDENT}/metrics.jsonl": ["draw-figures"],
}


@pytest.mark.parametrize("damage", ["truncated", "emptied", "flipped"])
@pytest.mark.parametrize("name", READERS)
def test_damaged_file_is_named_and_nothing_is_made_of_it(name, damage, tree, monkeypatch):
    monkeypatch.chdir(tree)
    file = tree / "results/tiny" / name
    if damage == "flipped":
        flip(file, 0.6 if file.suffix != ".jsonl" else 0.0)
    else:
        os.truncate(file, file.stat().st_size // 2 if damage == "truncated" else 0)
    before = {path: sha256(path) for path in (tree / "results").rglob("*") if path.is_file()}
    result = CliRunner().invoke(main, [*READERS[name], *OPTIONS])
    assert result.exit_code == 2, result.output
    assert f"results/tiny/{name}".replace("features.json", "features.npy") in result.output
    assert "emove it" in result.output
    assert {path: sha256(path) for path in (tree / "results").rglob("*") if path.is_file()} == before


def test_what_the_message_says_makes_a_damaged_file_anew(tree):
    names = [f"{STUDENT}/best.safetensors", "tables/main.csv"]
    expected = hashes(tree, names)
    flip(tree / "results/tiny" / names[0], 0.5)
    (tree / "results/tiny" / names[0]).unlink()
    result = snakemake(tree, "--cores", "2")
    assert result.returncode == 0, result.stdout + result.stderr
    assert hashes(tree, names) == expected


def test_no_flipped_bit_goes_unnoticed(finished):
    """At places all over the file: refused, or of no consequence for what is read."""
    import tempfile

    results, refusals = finished / "results/tiny", 0
    with tempfile.TemporaryDirectory() as folder:
        for name, read in (
            (f"{STUDENT}/best.safetensors", lambda file: str(read_checkpoint(file))),
            (f"outcomes/{STUDENT}.parquet", lambda file: read_outcomes([file]).to_csv()),
            ("cache/wide/logits.npy", _cached),
        ):
            file = Path(folder) / Path(name).name
            shutil.copy((results / name).with_suffix(".json"), folder) if file.suffix == ".npy" else None
            shutil.copy(results / name, file)
            expected, whole = read(file), file.read_bytes()
            for number in range(60):
                flip(file, (number + 0.5) / 60)
                try:
                    assert read(file) == expected, f"{name}: bit at {number + 0.5}/60 of the file"
                except UserError:
                    refusals += 1
                file.write_bytes(whole)
    assert refusals > 120


def _cached(file: Path) -> str:
    values = CachedValues(file, read_json(file.with_suffix(".json"))["key"])
    return str(values(torch.arange(values.images), torch.zeros(values.images, dtype=torch.int64)).tolist())


def trained_again(tree: Path) -> subprocess.Popen:
    """A Snakemake that makes a student anew, and nothing else."""
    (tree / BEST).unlink()
    command = [sys.executable, "-m", "snakemake", "--cores", "1", BEST]
    command += ["--config", "experiment=params.yaml", "overlay=tiny.yaml"]
    return subprocess.Popen(command, cwd=tree, env=environment(tree), stderr=subprocess.PIPE, text=True)


def test_two_snakemakes_at_once(tree):
    """The second starts nothing and says why; the first comes to its end."""
    first = trained_again(tree)
    for line in first.stderr:
        if "rule train_student" in line:
            break
    second = snakemake(tree, "--cores", "1")
    assert second.returncode == 1
    assert "LockException" in second.stdout + second.stderr
    by_us = subprocess.run(
        [sys.executable, "-m", "robust_distillation.cli", "reproduce", "--overlay", "tiny.yaml"],
        cwd=tree, env=environment(tree), capture_output=True, text=True,
    )  # fmt: skip
    refused(by_us, "another run works in this folder", code=2)
    first.communicate(timeout=300)
    assert first.returncode == 0
    assert (tree / BEST).is_file()


def test_the_end_of_one_job_leaves_the_others_and_the_next_start_goes_on(tree):
    """kill -9 of a training under Snakemake."""
    expected = hashes(tree, [f"{STUDENT}/best.safetensors", f"{STUDENT}/last.safetensors"])
    eager(tree)
    log = tree / f"results/tiny/logs/train-student/{RUN}.log"
    log.unlink()
    process = trained_again(tree)
    while process.poll() is None and not (log.is_file() and '"epoch": 1' in log.read_text()):
        pass
    [job] = jobs(tree)
    os.kill(job, signal.SIGKILL)
    process.communicate(timeout=100)
    assert process.returncode == 1
    again = snakemake(tree, "--cores", "1", BEST)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "going on from" in log.read_text()
    assert hashes(tree, list(expected)) == expected


class Wide(nn.Module):
    """Needs 16 MB for each image."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 4096, 1)

    def forward(self, x):
        return self.convolution(x).amax((2, 3))[:, :10]


@pytest.mark.slow
def test_prediction_goes_on_in_halves_where_memory_runs_out():
    """In a process that may have 400 MB more than it has: 64 images of 16 MB each do not fit."""
    code = (
        "import resource, sys, torch; from test_faults import Wide; from robust_distillation.evaluation.attack import "
        "predict\n"
        "torch.manual_seed(0); model, x = Wide(), torch.rand(64, 1, 32, 32); predict(model, x[:1])\n"
        "pages = int(open('/proc/self/statm').read().split()[0])\n"
        "limit = pages * resource.getpagesize() + 400 * 2**20; resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "try: model(x); print('fits')\n"
        "except RuntimeError: print('does not')\n"
        "print(predict(model, x).classes.tolist())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY / "tests", env=environment(REPOSITORY), capture_output=True,
        text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    torch.manual_seed(0)
    model, x = Wide(), torch.rand(64, 1, 32, 32)
    assert result.stdout == f"does not\n{torch.cat([predict(model, part).classes for part in x.split(8)]).tolist()}\n"


def test_halves_are_only_for_memory():
    calls = []

    def once(x):
        calls.append(len(x))
        if len(x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x * 2

    assert torch.equal(split_on_oom(once, torch.arange(10)), torch.arange(10) * 2)
    assert calls == [10, 5, 3, 2, 5, 3, 2]
    with pytest.raises(RuntimeError, match="size"):
        split_on_oom(lambda x: torch.zeros(2) @ torch.zeros(3), torch.arange(10))
    with pytest.raises(torch.OutOfMemoryError):
        split_on_oom(lambda x: once(torch.arange(10)), torch.arange(2))


def test_training_that_needs_more_memory_than_there_is_says_what_to_do(tree):
    """Where the result would be another, the batch stays as it is."""
    source = tree / "tiny.yaml"
    source.write_text(source.read_text().replace("small: {width: 4}", "small: {width: 1024}"))

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))

    result = subprocess.run(
        [sys.executable, "-m", "robust_distillation.cli", "train-student", "none/small/natural/seed-0",
         "--experiment", "params.yaml", "--overlay", "tiny.yaml"],
        cwd=tree, env=environment(tree), capture_output=True, text=True, preexec_fn=limited,
    )  # fmt: skip
    refused(result, "out of memory. Let fewer jobs run at once", KEPT)


def test_other_faults_keep_their_traceback():
    assert system_fault(OSError(2, "No such file", "x")) is None
    assert system_fault(RuntimeError("shape")) is None
    assert "is read-only" in system_fault(PermissionError(13, "Permission denied", "x"))
