"""A throw-away Slurm on this machine: two nodes of four CPUs and two pretended GPUs each, no systemd, no database."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sinfo", "sbatch")
DEFAULT = Path("/etc/slurm")  # the executor's srun reads no other place
NODES = ("n1", "n2")
# cred_expire: a job that is queued again waits for so long. KillWait: between SIGTERM and SIGKILL.
CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
MinJobAge=3600
KillWait=20
SlurmdTimeout=20
JobRequeue=1
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.txt
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port=16901 CPUs=4 RealMemory=16000 Gres=gpu:2 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port=16902 CPUs=4 RealMemory=16000 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=urgent Nodes=n[1-2] Default=NO MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


class Slurm:
    def __init__(self, folder: Path):
        self.folder = folder

    def up(self) -> None:
        folder, host = self.folder, socket.gethostname().partition(".")[0]
        for name in ("state", *(f"spool-{node}" for node in NODES)):
            (folder / name).mkdir(parents=True)
        configuration, gpus, key = folder / "slurm.conf", folder / "gres.conf", folder / "munge.key"
        configuration.write_text(CONFIGURATION.format(folder=folder, host=host))
        for number in range(2):
            subprocess.run(["mknod", folder / f"gpu{number}", "c", "1", "3"], check=True)
        gpus.write_text(f"Name=gpu Flags=nvidia_gpu_env File={folder}/gpu[0-1]\n")
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        DEFAULT.mkdir(exist_ok=True)
        for file in (configuration, gpus):
            if (link := DEFAULT / file.name).is_symlink():  # left by one that was killed; it leads nowhere
                link.unlink()
            link.symlink_to(file)
        munge = {"key-file": key, "socket": folder / "munge.sock", "pid-file": folder / "munged.pid",
                 "log-file": folder / "munged.log", "seed-file": folder / "munge.seed"}  # fmt: skip
        subprocess.run(["munged", *(f"--{name}={value}" for name, value in munge.items()), "--force"], check=True)
        subprocess.run(["slurmctld", "-c"], check=True)
        for node in NODES:
            subprocess.run(["slurmd", "-N", node], check=True)
        self.wait_for(lambda: self.states() == {"idle"}, (folder / "slurmctld.log").read_text)

    def down(self) -> None:
        subprocess.run(["scancel", "--user=root"], check=False)
        time.sleep(1)
        for name in (*(f"slurmd-{node}" for node in NODES), "slurmctld", "munged"):
            stop(self.folder / f"{name}.pid")
        for name in ("slurm.conf", "gres.conf"):
            (DEFAULT / name).unlink(missing_ok=True)

    def states(self) -> set[str]:
        result = subprocess.run(["sinfo", "-h", "-N", "-o", "%T"], capture_output=True, text=True)
        return set(result.stdout.split())

    def running(self) -> dict[str, str]:
        """Job to node."""
        command = ["squeue", "-h", "-t", "R", "-p", "main", "-o", "%i %N"]
        result = subprocess.run(command, capture_output=True, text=True)
        return dict(line.split() for line in result.stdout.splitlines())

    def ended(self) -> list[str]:
        """How each job that is over ended."""
        file = self.folder / "jobs.txt"
        return re.findall(r"JobState=(\w+)", file.read_text()) if file.exists() else []

    def wait_for(self, condition, say=lambda: "", seconds: float = 120) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, say()
            time.sleep(0.3)


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing or os.geteuid() != 0:
        lacking = ", ".join(missing) or "root, as whom alone slurmd starts jobs of a cluster of its own"
        pytest.skip(f"needs a Slurm to start: apt-get install slurm-wlm munge, as root; not here: {lacking}")
    if not find_spec("snakemake_executor_plugin_slurm"):
        pytest.skip(
            "needs snakemake-executor-plugin-slurm, not of the program's own packages: requirements-services.txt"
        )
    if (DEFAULT / "slurm.conf").exists():
        pytest.skip(
            f"{DEFAULT}/slurm.conf is there: this machine has a Slurm of its own, which the test must not replace"
        )
    cluster = Slurm(folder)
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


def stop(pid: Path) -> None:
    if not pid.is_file():
        return
    number = int(pid.read_text())
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(number, signal_number)
            for _ in range(100):
                os.kill(number, 0)
                time.sleep(0.1)
        except ProcessLookupError:
            return
