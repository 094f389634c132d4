"""Pretended GPUs: never two jobs on one unless asked, and one is free again however its job ended."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import torch
from conftest import REPOSITORY, environment

from robust_distillation.device import select_device
from robust_distillation.errors import UserError
from robust_distillation.settings import Compute

JOB = """
import sys, time
from pathlib import Path
from robust_distillation.device import gpus
gpus.WAIT = 0.05
print(gpus.acquire(sys.argv[2].split(","), int(sys.argv[3]), Path(sys.argv[1])), flush=True)
time.sleep(60)
"""


def job(folder, names: str, each: int = 1) -> subprocess.Popen:
    command = [sys.executable, "-c", JOB, folder, names, str(each)]
    return subprocess.Popen(command, env=environment(REPOSITORY), stdout=subprocess.PIPE, text=True)


def test_a_gpu_that_is_named_is_the_current_one(monkeypatch):
    """Or graphs would be recorded, and memory be pinned, on the first one."""
    made = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", made.append)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda _: None)
    for name in ("cpu", "cuda", "cuda:1"):
        assert str(select_device(Compute(device=name))) == name
    with pytest.raises(UserError, match="cuda:2 is asked for, but torch sees 2 GPUs here"):
        select_device(Compute(device="cuda:2"))
    assert made == ["cuda:1"]


@pytest.mark.slow
def test_each_job_has_its_own_and_the_next_waits_until_one_ends(tmp_path):
    first, second = job(tmp_path, "a,b"), job(tmp_path, "a,b")
    taken = {process.stdout.readline(): process for process in (first, second)}
    assert set(taken) == {"0\n", "1\n"}
    third = job(tmp_path, "a,b")
    time.sleep(1)
    taken["1\n"].kill()
    assert third.stdout.readline() == "1\n"
    taken["0\n"].terminate()
    fourth = job(tmp_path, "b,a")  # the same two, seen in another order
    assert fourth.stdout.readline() == "1\n"
    for process in (first, second, third, fourth):
        process.kill()
        process.wait()


@pytest.mark.slow
def test_jobs_share_one_where_that_is_asked_for(tmp_path):
    processes = [job(tmp_path, "a,b", 2) for _ in range(4)]
    assert sorted(process.stdout.readline() for process in processes) == ["0\n", "0\n", "1\n", "1\n"]
    for process in processes:
        process.kill()
        process.wait()
