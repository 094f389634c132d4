"""The Slurm profile on a real Slurm of this one machine, started for the purpose: one node, no database, no systemd."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import environment, fresh_tree, snakemake

pytestmark = pytest.mark.services
PROGRAMS = ("munged", "slurmctld", "slurmd", "sinfo", "sbatch")
DEFAULT = Path("/etc/slurm/slurm.conf")  # the executor's srun reads no other place
CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.txt
MinJobAge=3600
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 Port=16901 CPUs=4 RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes=node Default=YES MaxTime=INFINITE State=UP
"""
SMALL = """
name: tiny
dataset: {limit: {train: 64, validation: 20}}
seeds: [0]
training: {epochs: 1, batch_size: 32, milestones: [], inner_attack: {steps: 1}, selection: {steps: 1}}
teachers: {wide: {width: 2, training: {epochs: 1, milestones: []}}}
students: {small: {width: 2}}
"""


@pytest.fixture
def slurm(tmp_path):
    """The folder of a Slurm that is up, and is taken down at the end."""
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and Debian's slurm-wlm and munge; not found: {', '.join(missing) or 'root'}")
    if not find_spec("snakemake_executor_plugin_slurm"):
        pytest.skip("needs PyPI's snakemake-executor-plugin-slurm")
    if DEFAULT.exists():
        pytest.skip(f"{DEFAULT} is there: this machine has a Slurm of its own")
    folder, host = tmp_path / "slurm", socket.gethostname().partition(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    tmp_path.chmod(0o755)
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, host=host))
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    DEFAULT.parent.mkdir(exist_ok=True)
    DEFAULT.symlink_to(configuration)
    munge = {"key-file": key, "socket": folder / "munge.sock", "pid-file": folder / "munged.pid",
             "log-file": folder / "munged.log", "seed-file": folder / "munge.seed"}  # fmt: skip
    try:
        subprocess.run(["munged", *(f"--{name}={value}" for name, value in munge.items()), "--force"], check=True)
        subprocess.run(["slurmctld", "-c"], check=True)
        subprocess.run(["slurmd", "-N", "node"], check=True)
        until = time.monotonic() + 60
        while subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True).stdout.strip() != "idle":
            assert time.monotonic() < until, (folder / "slurmctld.log").read_text()
            time.sleep(0.5)
        yield folder
    finally:
        subprocess.run(["scancel", "--user=root"], check=False)
        for daemon in ("slurmd", "slurmctld", "munged"):
            stop(folder / f"{daemon}.pid")
        DEFAULT.unlink()


def stop(pid: Path) -> None:
    if pid.is_file():
        number = int(pid.read_text())
        os.kill(number, signal.SIGTERM)
        for _ in range(100):
            if not Path(f"/proc/{number}").exists():
                return
            time.sleep(0.1)
        os.kill(number, signal.SIGKILL)


def test_the_slurm_profile_trains_a_student_and_the_default_profile_finds_it_done(slurm, tmp_path):
    tree = fresh_tree(tmp_path / "tree")
    (tree / "tiny.yaml").write_text(SMALL)
    student = "results/tiny/students/wide/small/rslad/seed-0/best.safetensors"
    profile = ["--profile", "profiles/slurm", "--workflow-profile", "none"]
    quick = [
        "--slurm-status-command",
        "squeue",
        "--slurm-init-seconds-before-status-checks",
        "1",
        "--latency-wait",
        "5",
    ]
    command = [sys.executable, "-m", "snakemake", student, *profile, *quick]
    result = subprocess.run(
        [*command, "--config", "experiment=params.yaml", "overlay=tiny.yaml"],
        cwd=tree, env=environment(tree), capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    # teacher, cache and student in Slurm; the data where the workflow was started
    assert (slurm / "jobs.txt").read_text().count("JobState=COMPLETED") == 3
    assert "localrule prepare_data" in result.stdout + result.stderr
    again = snakemake(tree, "-n", student)
    assert "Nothing to be done" in again.stdout + again.stderr
