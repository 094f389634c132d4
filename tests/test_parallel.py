"""One teacher on two devices, here two processes on the CPU: the same training, and what a lost process does to it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, TINY, environment, fresh_tree
from ranks import first_steps
from test_resume import OPTIONS, command, hashes
from test_training import SETTINGS
from toy_methods import TOYS

from robust_distillation import methods
from robust_distillation.errors import UserError
from robust_distillation.files import read_json
from robust_distillation.training.parallel import Group, synchronised

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def on_two(folder: Path, *what: str) -> dict:
    file = folder / "found.pt"
    result = subprocess.run(
        [*TORCHRUN, REPOSITORY / "tests/ranks.py", file, *what], env=environment(REPOSITORY),
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return torch.load(file, weights_only=True)


ALL = [*methods.names(), *TOYS, "sat+wu2020", "rslad+adr", "gacd+wu2020", "Everything+adr"]


@pytest.fixture(scope="module")
def on_two_processes(made_once) -> dict:
    """The first steps by every method, toys that use all of the contract among them, some with settings of training."""
    folder = made_once("two-processes", lambda folder: on_two(folder, "steps", "synchronised", *ALL))
    return torch.load(folder / "found.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("method", ALL)
def test_two_processes_take_the_same_first_steps_as_one(method, on_two_processes):
    """Weights, running statistics, and the state of the method, which no process overwrites by its own."""
    alone, together = first_steps(method, Group(), ""), on_two_processes[method]
    assert alone.keys() == together.keys()
    for name, tensor in alone.items():
        assert torch.allclose(tensor.double(), together[name].double(), rtol=1e-11, atol=1e-9), name


@pytest.mark.slow
def test_local_batch_norm_is_another_training(tmp_path):
    alone, together = first_steps("trades", Group(), ""), on_two(tmp_path, "steps", "local", "trades")["trades"]
    difference = (alone["student.classifier.weight"] - together["student.classifier.weight"]).abs().max()
    assert 1e-6 < difference < 1


@pytest.mark.slow
@pytest.mark.parametrize("method", ["trades", "fgsm_pgi"])
def test_a_training_killed_within_an_epoch_writes_the_same_lines(method, tmp_path):
    """Each process goes on with its own sums: in another order their additions would round otherwise."""
    found = on_two(tmp_path, "resumed", method)
    assert len(found) == 7
    assert len(found["alone"]) == SETTINGS.epochs
    for name, lines in found.items():
        assert lines == found["alone"], name


@pytest.fixture
def alone_in_a_group():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_synchronised_batch_norm_sums_in_the_precision_of_its_statistics(dtype, alone_in_a_group):
    """43 * 7 * 7 is no number of bfloat16's."""
    x = (3 + torch.randn(43, 5, 7, 7, generator=torch.Generator().manual_seed(0))).to(dtype)
    expected, own = torch.nn.BatchNorm2d(5), synchronised(torch.nn.BatchNorm2d(5))
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        there, here = expected(x), own(x)
    assert here.dtype == there.dtype == dtype
    torch.testing.assert_close(here, there)
    torch.testing.assert_close(own.state_dict(), expected.state_dict(), rtol=1e-6, atol=1e-6)


def test_shares_are_the_whole_batch_and_count_by_their_size():
    for total in (1, 2, 5, 7, 128):
        for size in (1, 2, 3):
            groups = [Group(rank, size) for rank in range(size)]
            rows = [row for group in groups for row in range(total)[group.shard(total)]]
            assert rows == list(range(total))
            assert sum(group.weight(total) for group in groups) == pytest.approx(size)


def test_a_batch_with_fewer_images_than_devices_is_refused():
    Group(0, 2).check(130, 64, drop_last=False)
    Group(0, 2).check(129, 64, drop_last=True)
    Group().check(129, 64, drop_last=False)
    for images, size in ((129, 64), (4, 1)):
        with pytest.raises(UserError, match="one of them has 1, for 2 devices"):
            Group(0, 2).check(images, size, drop_last=False)


@pytest.fixture(scope="module")
def trained(made_once) -> Path:
    """A checkout with a teacher that was trained on two devices."""

    def train(tree: Path) -> None:
        fresh_tree(tree)
        overlay = TINY.replace("wide: {width: 8,", "wide: {width: 8, devices: 2,")
        (tree / "tiny.yaml").write_text(overlay + "compute: {save_every: 0.001}\n")
        for arguments in (["prepare-data"], ["train-teacher", "wide"]):
            assert command(tree, *arguments).returncode == 0
        record = read_json(tree / "results/tiny/teachers/wide/record.json")
        assert record["settings"]["devices"] == {"count": 2, "batch_norm": "synchronised"}

    return made_once("two-devices", train)


FILES = ["teachers/wide/best.safetensors", "teachers/wide/last.safetensors", "teachers/wide/metrics.jsonl"]


def workers(tree: Path) -> list[int]:
    """The processes that train, not torchrun which started them."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
            trains = b"robust_distillation.cli" in words and b"torch.distributed.run" not in words
            if trains and os.readlink(place / "cwd") == str(tree):
                found.append(int(place.name))
        except OSError:
            continue
    return sorted(found)


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "number"), [(1, signal.SIGKILL), (0, signal.SIGKILL), (None, signal.SIGTERM)])
def test_a_process_that_is_lost_ends_the_job_and_the_next_start_goes_on(victim, number, trained, tmp_path):
    tree = Path(shutil.copytree(trained, tmp_path / "tree"))
    before = hashes(tree, FILES)
    process = subprocess.Popen(
        [sys.executable, "-m", "robust_distillation.cli", "train-teacher", "wide", *OPTIONS], cwd=tree,
        env=environment(tree), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stderr:
        if '"epoch": 1' in line:
            break
    if victim is None:
        process.send_signal(number)
    else:
        os.kill(workers(tree)[victim], number)
    process.communicate(timeout=100)
    assert process.returncode != 0
    until = time.monotonic() + 40
    while workers(tree) and time.monotonic() < until:
        time.sleep(0.2)
    assert not workers(tree)
    again = command(tree, "train-teacher", "wide")
    assert again.returncode == 0, again.stderr
    assert "going on from" in again.stderr
    assert hashes(tree, FILES) == before
