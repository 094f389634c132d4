"""The workflow on a real Slurm: end to end, and what a cluster does to jobs. No byte differs, nothing is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import environment, fresh_tree, planned, snakemake
from slurm_cluster import Slurm, slurm

from robust_distillation.files import read_json, sha256

pytestmark = [pytest.mark.services, pytest.mark.slurm]
SMALL = """
name: tiny
dataset: {limit: {train: 64, validation: 20}}
seeds: [0]
training: {epochs: 1, batch_size: 32, milestones: [], inner_attack: {steps: 1}, selection: {steps: 1}}
teachers: {wide: {width: 2, training: {epochs: 1, milestones: []}}}
students: {small: {width: 2}}
methods: {natural: ~, sat: ~, trades: ~, mart: ~, ard: ~, iad: ~, gacd: ~}
tuning: ~
evaluation: {images: 12, attacks: [fgsm]}
structure: {images: 12}
robustness: {images: 12, gallery: 1}
transfer: ~
claims: ~
"""
RUN = "none/small/natural/seed-0"
STUDENT = f"results/tiny/students/{RUN}"
# One student that trains for a while, and saves every second.
LONG = (
    SMALL.replace("rslad: ~", "")
    .replace("methods: {natural: ~, sat: ~,", "methods: {rslad: ~, sat: ~,")
    .replace("epochs: 1, batch_size: 32,", "epochs: 100, batch_size: 8,", 1)
    + "compute: {save_every: 1}\n"
)
COMPARED = (".safetensors", ".jsonl", ".npy", ".parquet", ".csv", ".md", ".tex")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Slurm]:
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o755)
    with slurm(folder) as found:
        yield found


def profile(tree: Path, *options: str) -> list[str]:
    """A profile written by the program for this experiment; polled often, for the tests are short."""
    command = [sys.executable, "-m", "robust_distillation.cli", "cluster", "profiles/test", "--overlay", "tiny.yaml"]
    subprocess.run([*command, *options], cwd=tree, env=environment(tree), check=True, capture_output=True)
    quick = ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1"]
    return ["--profile", "profiles/test", "--workflow-profile", "none", *quick, "--latency-wait", "5"]


def started(tree: Path, target: str, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "snakemake", target, *profile(tree, *options)]
    return subprocess.Popen(
        [*command, "--config", "experiment=params.yaml", "overlay=tiny.yaml"], cwd=tree, env=environment(tree),
        stdout=(tree / "log").open("w"), stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def ended(tree: Path, process: subprocess.Popen, code: int = 0) -> None:
    assert process.wait(timeout=900) == code, (tree / "log").read_text()[-5000:]  # a busy machine is slow


def made(tree: Path) -> dict[str, str]:
    results = tree / "results/tiny"
    files = (file.relative_to(results) for file in results.rglob("*") if file.suffix in COMPARED)
    return {str(file): sha256(results / file) for file in files if not any(p.startswith(".") for p in file.parts)}


def sessions(tree: Path) -> int:
    return read_json(tree / STUDENT / "record.json")["time"]["sessions"]


@pytest.fixture(autouse=True)
def no_job_is_left(cluster, tmp_path) -> Iterator[None]:
    """A test that failed leaves nothing running that the next one would count."""
    yield
    for process in processes_in(tmp_path, "snakemake", below=True):
        process.kill()
    for job in cluster.running():
        subprocess.run(["scancel", job], check=False)
    cluster.wait_for(lambda: not cluster.running(), lambda: str(cluster.running()))


@pytest.fixture
def training(tmp_path) -> Path:
    """A tree whose one student takes some seconds."""
    return tree_of(tmp_path / "tree")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> str:
    """The same student, trained without Slurm and at one go."""
    tree = tree_of(tmp_path_factory.mktemp("alone") / "tree")
    result = snakemake(tree, "--cores", "1", f"{STUDENT}/last.safetensors")
    assert result.returncode == 0, result.stderr
    return student(tree)


def tree_of(folder: Path) -> Path:
    tree = fresh_tree(folder)
    (tree / "tiny.yaml").write_text(LONG)
    return tree


def student(tree: Path) -> str:
    return sha256(tree / STUDENT / "last.safetensors")


def suspended_job(cluster: Slurm, tree: Path) -> str:
    """The Slurm job that trains, standing still once its state was saved: no processor is so fast that it ends before
    it is disturbed. Slurm lets a job go on before it asks it to end, as for one that was suspended."""
    cluster.wait_for(lambda: list(tree.glob(f"results/tiny/.state/students/{RUN}/*/state")), (tree / "log").read_text)
    send_training(tree, signal.SIGSTOP)
    [job] = cluster.running()
    return job


def processes_in(tree: Path, *texts: str, below: bool = False) -> list[psutil.Process]:
    """The processes that run in a tree, or `below` it too, and have one of the texts in their command line."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline())
            place = Path(process.cwd())
            if any(text in line for text in texts) and (place == tree or (below and tree in place.parents)):
                found.append(process)
    return found


def send_training(tree: Path, number: signal.Signals) -> None:
    """Sends a signal to the student's training in a tree: one that another test session runs is left alone."""
    processes = processes_in(tree, f"train-student {RUN}")
    assert processes
    for process in processes:
        process.send_signal(number)


def test_the_default_experiment_in_miniature_equals_the_local_run(cluster, tmp_path):
    here, there = fresh_tree(tmp_path / "here"), fresh_tree(tmp_path / "there")
    for tree in (here, there):
        (tree / "tiny.yaml").write_text(SMALL)
    assert snakemake(here, "--cores", "2").returncode == 0
    ended(there, started(there, "all", "--group", "6", "--gpus"))
    assert made(there) == made(here)
    assert planned(there) == set()
    assert set(cluster.ended()) == {"COMPLETED"}
    log = (there / "log").read_text()
    assert "localrule prepare_data" in log
    assert len(cluster.ended()) < 19  # jobs of Snakemake that left this process: attacks and analyses shared some


def test_a_job_that_gives_way_to_a_more_urgent_one_goes_on_after_it(cluster, training, undisturbed):
    process = started(training, f"{STUDENT}/last.safetensors")
    suspended_job(cluster, training)
    urgent = ["sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--time=1", "--output=/dev/null",
              "--wrap=sleep 3"]  # fmt: skip
    subprocess.run(urgent, check=True, capture_output=True)
    ended(training, process)
    assert sessions(training) == 2
    assert student(training) == undisturbed


def test_a_cancelled_job_is_tried_again_and_goes_on(cluster, training, undisturbed):
    process = started(training, f"{STUDENT}/last.safetensors")
    subprocess.run(["scancel", suspended_job(cluster, training)], check=True)
    ended(training, process)
    assert sessions(training) == 2
    assert student(training) == undisturbed


def test_a_node_that_is_lost_for_good(cluster, training, undisturbed):
    process = started(training, f"{STUDENT}/last.safetensors")
    job = suspended_job(cluster, training)
    node = cluster.running()[job]
    pid = int((cluster.folder / f"slurmd-{node}.pid").read_text())
    # The machine is gone: its daemon and all that ran on it.
    os.kill(pid, signal.SIGKILL)
    steps = subprocess.run(["pgrep", "-f", "--", f"slurmstepd: \\[{job}"], capture_output=True, text=True)
    for number in map(int, steps.stdout.split()):
        os.kill(number, signal.SIGKILL)
    for lost in processes_in(training, f"train-student {RUN}", "--target-jobs train_student"):
        lost.kill()
    subprocess.run(["scontrol", "update", f"nodename={node}", "state=down", "reason=lost"], check=True)
    try:
        ended(training, process)
        assert sessions(training) == 2
        assert student(training) == undisturbed
    finally:
        subprocess.run(["slurmd", "-N", node], check=True)
        subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], check=False)
        cluster.wait_for(lambda: cluster.states() == {"idle"}, lambda: str(cluster.states()))


def test_time_that_is_up_is_no_loss(cluster, training, undisturbed):
    """A limit of one minute, which is as short as Slurm's are."""
    before = len(cluster.ended())
    process = started(training, f"{STUDENT}/last.safetensors")
    job = suspended_job(cluster, training)
    subprocess.run(["scontrol", "update", f"jobid={job}", "TimeLimit=1"], check=True)
    ended(training, process)
    assert "TIMEOUT" in cluster.ended()[before:]
    assert sessions(training) == 2
    assert "going on from" in (training / f"results/tiny/logs/train-student/{RUN}.log").read_text()
    assert student(training) == undisturbed


def test_kill_9_of_snakemake_and_nothing_is_done_twice(cluster, training, undisturbed):
    """Its job goes on. The next start waits for it."""
    process = started(training, f"{STUDENT}/last.safetensors")
    suspended_job(cluster, training)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(1)
    assert len(cluster.running()) == 1
    locked = snakemake(training, "--cores", "1", f"{STUDENT}/last.safetensors")
    assert "LockException" in locked.stdout + locked.stderr
    assert snakemake(training, "--unlock").returncode == 0
    again = started(training, f"{STUDENT}/last.safetensors")
    log = training / f"results/tiny/logs/train-student/{RUN}.log"
    cluster.wait_for(lambda: "waiting until it ends" in log.read_text(errors="replace"), log.read_text)
    send_training(training, signal.SIGCONT)
    ended(training, again)
    assert sessions(training) == 1  # one training, from its start to its end
    assert student(training) == undisturbed
    assert planned_student(training) == set()


def planned_student(tree: Path) -> set[str]:
    return {job for job in planned(tree) if job.startswith("train_student")}
